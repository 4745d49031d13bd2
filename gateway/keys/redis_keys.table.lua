-- Everything, as of one moment. KEYS: the records, the version.
-- Returns the version (false where nothing was ever stored), then id and record in turn.
local table_of_keys = redis.call('HGETALL', KEYS[1])
table.insert(table_of_keys, 1, redis.call('GET', KEYS[2]))
return table_of_keys
