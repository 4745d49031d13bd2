-- Adds an event to a job. KEYS: the job, its events. ARGV: the event, how many to keep.
-- Returns the event's number, counted from 1, or -1 if there is no such job.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return -1
end
redis.call('RPUSH', KEYS[2], ARGV[1])
redis.call('LTRIM', KEYS[2], -tonumber(ARGV[2]), -1)
return redis.call('HINCRBY', KEYS[1], 'events', 1)
