-- Keep what somebody thinks of an item, or take it back where nothing is given.
-- KEYS: meta ratings    ARGV: schema item rating limit
-- -> ok | full | missing | newer version
local meta, ratings = unpack(KEYS)
local refusal = newer_schema(meta)
if refusal then
  return refusal
end
if redis.call('HEXISTS', meta, 'created_at') == 0 then
  return { 'missing' }
end
if ARGV[3] == '' then
  redis.call('HDEL', ratings, ARGV[2])
  return { 'ok' }
end
if redis.call('HEXISTS', ratings, ARGV[2]) == 0 and redis.call('HLEN', ratings) >= tonumber(ARGV[4]) then
  return { 'full' }
end
redis.call('HSET', ratings, ARGV[2], ARGV[3])
local left = redis.call('PTTL', meta)
if left >= 0 then
  redis.call('PEXPIRE', ratings, left)
end
return { 'ok' }
