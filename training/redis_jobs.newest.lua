-- Reads job ids of a list, newest first. KEYS: the list. ARGV: the id to begin behind or '', how many.
-- Returns the ids, or nothing if the list has no such id.
local start = 0
if ARGV[1] ~= '' then
  local rank = redis.call('ZREVRANK', KEYS[1], ARGV[1])
  if not rank then
    return false
  end
  start = rank + 1
end
return redis.call('ZREVRANGE', KEYS[1], start, start + tonumber(ARGV[2]) - 1)
