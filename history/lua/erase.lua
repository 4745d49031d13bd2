-- Delete everything, the lease of whoever writes at this moment included.
-- KEYS: meta turns digests wait branches ratings vectors    ARGV: schema
-- -> ok user stored | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
local was = redis.call('HMGET', KEYS[1], 'user', 'stored')
redis.call('UNLINK', unpack(KEYS))
return { 'ok', was[1] or '', was[2] or '' }
