-- Put turns back that are in the archive: somebody goes on from among them.
-- KEYS: meta turns    ARGV: schema start base, then base - start turns
-- -> restored | stale | newer version
local meta, turns = unpack(KEYS)
local start, base = tonumber(ARGV[2]), tonumber(ARGV[3])

local refusal = newer_schema(meta)
if refusal then
  return refusal
end
local stored = redis.call('HMGET', meta, 'created_at', 'base')
if not stored[1] or tonumber(stored[2] or 0) ~= base or start >= base then
  return { 'stale' }
end
local expires = redis.call('PTTL', meta)
for at = #ARGV, 4, -1 do
  redis.call('LPUSH', turns, ARGV[at])
end
if expires >= 0 then
  redis.call('PEXPIRE', turns, expires)
end
redis.call('HSET', meta, 'base', start)
return { 'restored' }
