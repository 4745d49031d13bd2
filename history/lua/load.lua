-- The conversation without its turns.
-- KEYS: meta    ARGV: schema
-- -> ok fields | missing | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
if redis.call('HEXISTS', KEYS[1], 'created_at') == 0 then
  return { 'missing' }
end
return { 'ok', redis.call('HMGET', KEYS[1], unpack(FIELDS)) }
