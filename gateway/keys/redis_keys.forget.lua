-- Deletes a key's record. KEYS: the records, the version. ARGV: id, new version. Returns how many there were.
local deleted = redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2])
return deleted
