-- The numbers of the branches that left at a turn.
-- KEYS: meta branches    ARGV: schema index
-- -> ok numbers | newer version
local refusal = newer_schema(KEYS[1])
if refusal then
  return refusal
end
return { 'ok', redis.call('HGET', KEYS[2], 'at:' .. ARGV[2]) or '' }
