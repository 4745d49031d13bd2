-- Reads a job's events in order. KEYS: the job, its events. ARGV: the number to begin behind, how many.
-- Returns the number of the first one and the events, or nothing if there is no such job.
if redis.call('EXISTS', KEYS[1]) == 0 then
  return false
end
local last = tonumber(redis.call('HGET', KEYS[1], 'events') or '0')
local oldest = last - redis.call('LLEN', KEYS[2]) + 1
local first = math.max(tonumber(ARGV[1]) + 1, oldest)
local offset = first - oldest
return {first, redis.call('LRANGE', KEYS[2], offset, offset + tonumber(ARGV[2]) - 1)}
