-- Replace what the client noted about a conversation.
-- KEYS: meta    ARGV: schema metadata
-- -> ok | missing | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
if redis.call('HEXISTS', KEYS[1], 'created_at') == 0 then
  return { 'missing' }
end
redis.call('HSET', KEYS[1], 'metadata', ARGV[2])
return { 'ok' }
