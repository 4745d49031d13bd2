-- Stores one record. KEYS: the roster. ARGV: kind (`node:`, `drain:`), name, record, new version, how many of a
-- kind there may be, 1 if it must be new. Returns 1 stored, 0 there is one, -1 full.
local field = ARGV[1] .. ARGV[2]
if redis.call('HEXISTS', KEYS[1], field) == 1 then
  if ARGV[6] == '1' then
    return 0
  end
else
  local count = 0
  local fields = redis.call('HGETALL', KEYS[1])
  for at = 1, #fields, 2 do
    if string.sub(fields[at], 1, #ARGV[1]) == ARGV[1] then
      count = count + 1
    end
  end
  if count >= tonumber(ARGV[5]) then
    return -1
  end
end
redis.call('HSET', KEYS[1], field, ARGV[3], 'version', ARGV[4])
return 1
