-- A stretch of the turns or of the digests.
-- KEYS: meta list    ARGV: schema first last
-- -> ok values | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
return { 'ok', redis.call('LRANGE', KEYS[2], ARGV[2], ARGV[3]) }
