-- Deletes records. KEYS: the roster. ARGV: new version, then fields. Does nothing and returns 0 if there is none of
-- the first name.
if redis.call('HEXISTS', KEYS[1], ARGV[2]) == 0 then
  return 0
end
for i = 2, #ARGV do
  redis.call('HDEL', KEYS[1], ARGV[i])
end
redis.call('HSET', KEYS[1], 'version', ARGV[1])
return 1
