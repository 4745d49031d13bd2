-- Give up the ticket, and the lease if it was granted to this owner.
-- KEYS: meta wait    ARGV: schema owner
-- -> ok | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
redis.call('HDEL', KEYS[2], ARGV[2])
if redis.call('HGET', KEYS[1], 'owner') == ARGV[2] then
  redis.call('HDEL', KEYS[1], 'owner', 'until')
end
return { 'ok' }
