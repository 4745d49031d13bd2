-- Stores a new key. KEYS: the records, the version. ARGV: id, record, new version, how many keys there may be.
-- Returns 1 stored, 0 there is one with this id, -1 full.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then
  return 0
end
if redis.call('HLEN', KEYS[1]) >= tonumber(ARGV[4]) then
  return -1
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('SET', KEYS[2], ARGV[3])
return 1
