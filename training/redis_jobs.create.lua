-- Stores a new job. KEYS: the job. ARGV: version, record. Returns 1 stored, 0 there is such a job already.
if redis.call('EXISTS', KEYS[1]) == 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'record', ARGV[2])
return 1
