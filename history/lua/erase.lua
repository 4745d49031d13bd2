-- Delete everything, the lease of whoever writes at this moment included.
-- KEYS: meta turns digests wait branches ratings    ARGV: schema
-- -> ok user | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
local user = redis.call('HGET', KEYS[1], 'user')
redis.call('UNLINK', unpack(KEYS))
return { 'ok', user or '' }
