-- Replaces a job by its next version. KEYS: the job. ARGV: the new version, the new record.
-- Returns 1 replaced, 0 the stored version is not the one before, -1 no such job.
local version = redis.call('HGET', KEYS[1], 'version')
if not version then
  return -1
end
if tonumber(version) ~= tonumber(ARGV[1]) - 1 then
  return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[1], 'record', ARGV[2])
return 1
