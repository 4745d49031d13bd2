-- Replaces a key's record. KEYS: the records, the version. ARGV: id, the record as it was read, the new one,
-- new version. Returns 1 replaced, 0 somebody else changed it meanwhile.
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
  return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
redis.call('SET', KEYS[2], ARGV[4])
return 1
