-- One saved branch.
-- KEYS: meta branches    ARGV: schema number
-- -> ok branch | missing | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
local branch = redis.call('HGET', KEYS[2], ARGV[2])
if not branch then
  return { 'missing' }
end
return { 'ok', branch }
