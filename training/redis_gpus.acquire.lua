-- Takes GPUs for an owner, all or none. KEYS: the counter of fences, the GPUs. ARGV: owner, milliseconds.
-- Returns the lease's fence, or 0 if another owner has one of them.
for n = 2, #KEYS do
  local owner = redis.call('HGET', KEYS[n], 'owner')
  if owner and owner ~= ARGV[1] then
    return 0
  end
end
local fence = redis.call('INCR', KEYS[1])
for n = 2, #KEYS do
  redis.call('HSET', KEYS[n], 'owner', ARGV[1], 'fence', fence)
  redis.call('PEXPIRE', KEYS[n], ARGV[2])
end
return fence
