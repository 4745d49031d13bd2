-- Stores one record. KEYS: the table. ARGV: alias, record, the revision that it follows, its own, new version, how
-- many aliases there may be. Returns 1 stored, 0 another one came first, -1 full.
local known = redis.call('HGET', KEYS[1], 'revision:' .. ARGV[1]) or '0'
if known ~= ARGV[3] then
  return 0
end
if known == '0' then
  local count = 0
  local fields = redis.call('HKEYS', KEYS[1])
  for at = 1, #fields do
    if string.sub(fields[at], 1, 6) == 'alias:' then
      count = count + 1
    end
  end
  if count >= tonumber(ARGV[6]) then
    return -1
  end
end
redis.call('HSET', KEYS[1], 'alias:' .. ARGV[1], ARGV[2], 'revision:' .. ARGV[1], ARGV[4], 'version', ARGV[5])
return 1
