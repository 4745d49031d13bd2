-- Free the lease without writing, if it is still ours.
-- KEYS: meta    ARGV: schema owner fence
-- -> ok | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
local held = redis.call('HMGET', KEYS[1], 'owner', 'fence')
if held[1] == ARGV[2] and held[2] == ARGV[3] then
  redis.call('HDEL', KEYS[1], 'owner', 'until')
end
return { 'ok' }
