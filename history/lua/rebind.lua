-- Say where the KV lies now, unless turns were written meanwhile.
-- KEYS: meta    ARGV: schema turn_count binding
-- -> kept | stale | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
local stored = redis.call('HMGET', KEYS[1], 'created_at', 'turn_count')
if not stored[1] or tonumber(stored[2]) ~= tonumber(ARGV[2]) then
  return { 'stale' }
end
redis.call('HSET', KEYS[1], 'binding', ARGV[3])
return { 'kept' }
