-- Keep the vectors of archived turns, in place of those from `start` on.
-- KEYS: meta vectors    ARGV: schema created_at past form start most, then the records
-- -> kept | stale | newer version
local meta, list = unpack(KEYS)
local form, start, most = ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6])

local refusal = newer_schema(meta)
if refusal then
  return refusal
end
local stored = redis.call('HMGET', meta, 'created_at', 'past')
local number = string.match(stored[2] or '0 0', '^(%d+) ')
if tonumber(stored[1] or -1) ~= tonumber(ARGV[2]) or number ~= ARGV[3] then
  return { 'stale' }
end
local head = redis.call('LRANGE', list, 0, 0)[1] or ''
local first, stop, had = string.match(head, '^(%d+) (%d+) %d+ (.*)$')
first, stop = tonumber(first), tonumber(stop)
if had == form and first <= start and start <= stop then
  -- Without its head the list begins with the turn `first`.
  redis.call('LTRIM', list, 1, start - first)
else
  redis.call('UNLINK', list)
  first = start
end
for from = 7, #ARGV, 1000 do
  redis.call('RPUSH', list, unpack(ARGV, from, math.min(from + 999, #ARGV)))
end
stop = start + #ARGV - 6
if stop - first > most then
  redis.call('LTRIM', list, stop - first - most, -1)
  first = stop - most
end
redis.call('LPUSH', list, string.format('%d %d %s %s', first, stop, ARGV[3], form))
local left = redis.call('PTTL', meta)
if left >= 0 then
  redis.call('PEXPIRE', list, left)
else
  redis.call('PERSIST', list)
end
return { 'kept' }
