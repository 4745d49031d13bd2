-- Delete everything but the fence, which for a while tells late writers that they come too late.
-- KEYS: meta turns digests wait branches    ARGV: schema grave_ms
-- -> ok user | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
local meta = redis.call('HMGET', KEYS[1], 'fence', 'user')
redis.call('UNLINK', unpack(KEYS))
if meta[1] then
  redis.call('HSET', KEYS[1], 'v', ARGV[1], 'fence', meta[1], 'erased', meta[1])
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return { 'ok', meta[2] or '' }
