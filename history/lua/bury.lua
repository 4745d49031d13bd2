-- From now on the user counts as erased; what was in the index is to be erased next.
-- KEYS: index tombstone    ARGV: grave_ms
-- -> the ids
redis.call('SET', KEYS[2], '1', 'PX', ARGV[1])
return redis.call('ZRANGE', KEYS[1], 0, -1)
