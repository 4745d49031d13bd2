-- Who acts on nodes. KEYS: the leader. ARGV: owner, for how many ms. Returns 1 if it is this one now.
local leader = redis.call('GET', KEYS[1])
if leader and leader ~= ARGV[1] then
  return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
