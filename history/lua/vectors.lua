-- Which turns have a vector, and the records of some of them.
-- KEYS: meta vectors    ARGV: schema start stop
-- -> ok head records | newer version
-- The first element of the list is its head: "<start> <stop> <past> <form>".
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
local head = redis.call('LRANGE', KEYS[2], 0, 0)[1] or ''
local first = tonumber(string.match(head, '^(%d+) ') or 0)
local from, to = math.max(0, ARGV[2] - first), ARGV[3] - first
if to <= 0 then
  return { 'ok', head, {} }
end
return { 'ok', head, redis.call('LRANGE', KEYS[2], from + 1, to) }
