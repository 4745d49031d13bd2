-- Extend the lease from now, if it is still ours, and say whether somebody asks us to stop.
-- KEYS: meta turns digests branches ratings vectors    ARGV: schema owner fence lease_ms
-- -> held interrupted | lost | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
local held = redis.call('HMGET', KEYS[1], 'owner', 'fence', 'interrupt')
if held[1] ~= ARGV[2] or held[2] ~= ARGV[3] then
  return { 'lost' }
end
local now = server_ms()
redis.call('HSET', KEYS[1], 'until', digits(now + ARGV[4]))
outlive(now, 2 * ARGV[4], KEYS)
return { 'held', held[3] == ARGV[3] and 1 or 0 }
