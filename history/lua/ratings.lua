-- What somebody thinks of these items.
-- KEYS: meta ratings    ARGV: schema, then items
-- -> ok ratings | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
return { 'ok', redis.call('HMGET', KEYS[2], unpack(ARGV, 2)) }
