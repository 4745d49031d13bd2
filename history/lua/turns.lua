-- A stretch of the turns that are still in the store.
-- KEYS: meta turns    ARGV: schema first last
-- -> ok base values | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
local base = tonumber(redis.call('HGET', KEYS[1], 'base') or 0)
local first, last = tonumber(ARGV[2]) - base, tonumber(ARGV[3]) - base
if last < 0 then
  return { 'ok', base, {} }
end
return { 'ok', base, redis.call('LRANGE', KEYS[2], math.max(0, first), last) }
