-- Stores a new key. KEYS: the records, the version. ARGV: id, record, new version, how many keys there may be.
-- Returns 1 stored, 0 there is another one with this id, -1 full. The same one again is the same call again.
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if stored then
  return stored == ARGV[2] and 1 or 0
end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return -1
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[3])
return 1
