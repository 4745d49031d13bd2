-- Drop the first turns, which are in the archive now, if they are still those that went there.
-- KEYS: meta turns digests    ARGV: schema start stop sha1
-- -> shed | stale | newer version
local meta, turns, digests = unpack(KEYS)
local start, stop = tonumber(ARGV[2]), tonumber(ARGV[3])

local refusal = newer_schema(meta)
if refusal then
  return refusal
end
local stored = redis.call('HMGET', meta, 'created_at', 'base', 'cut')
if not stored[1] or tonumber(stored[2] or 0) ~= start
  or stop <= start or stop > tonumber(stored[3]) then
  return { 'stale' }
end
if redis.sha1hex(table.concat(redis.call('LRANGE', digests, start, stop - 1))) ~= ARGV[4] then
  return { 'stale' }
end
redis.call('LTRIM', turns, stop - start, -1)
redis.call('HSET', meta, 'base', stop)
return { 'shed' }
