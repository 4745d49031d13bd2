-- Put a conversation at the end of its user's index, unless the user was erased.
-- KEYS: index tombstone    ARGV: id
-- -> ok | erased
if redis.call('EXISTS', KEYS[2]) == 1 then
  return { 'erased' }
end
local last = redis.call('ZRANGE', KEYS[1], -1, -1, 'WITHSCORES')
redis.call('ZADD', KEYS[1], 'NX', (last[2] or 0) + 1, ARGV[1])
return { 'ok' }
