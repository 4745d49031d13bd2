-- Enters a job into its tenant's list.
-- KEYS: the list. ARGV: created_at, id, the most jobs a list may hold.
-- Returns 1 entered, 0 was there already, -1 the list is full.
if redis.call('ZSCORE', KEYS[1], ARGV[2]) then
  return 0
end
if redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then
  return -1
end
return redis.call('ZADD', KEYS[1], ARGV[1], ARGV[2])
