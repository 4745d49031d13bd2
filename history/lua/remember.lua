-- Add a version of the memory, if what it was made of is still so.
-- KEYS: meta digests    ARGV: schema expected_version start covers_to sha1 version kept
-- -> kept | stale | newer version
local meta, digests = unpack(KEYS)
local expected, start, covers_to = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])

local refusal = newer_schema(meta)
if refusal then
  return refusal
end
local stored = redis.call('HMGET', meta, 'created_at', 'turn_count', 'memories', 'memory_version', 'shows')
if not stored[1] or tonumber(stored[4] or 0) ~= expected then
  return { 'stale' }
end
local versions = memory_versions(stored[3] or '')
local newest = #versions > 0 and versions[#versions].covers_to or 0
if covers_to <= newest or covers_to > tonumber(stored[2]) then
  return { 'stale' }
end
local covered = table.concat(redis.call('LRANGE', digests, start, covers_to - 1))
if redis.sha1hex(covered) ~= ARGV[5] then
  return { 'stale' }
end
versions[#versions + 1] = { covers_to = covers_to, bytes = ARGV[6] }
-- See `store_rules.with_newest`.
local shows, left = tonumber(stored[5] or 0), {}
for at, version in ipairs(versions) do
  if at > #versions - tonumber(ARGV[7]) or version.covers_to == shows then
    left[#left + 1] = version
  end
end
-- The mark tells it from another one of the same number, where a crash of the server took one back.
redis.call(
  'HSET', meta, 'memories', joined_versions(left, covers_to), 'memory_version', expected + 1,
  'memory_mark', string.sub(redis.sha1hex(ARGV[6]), 1, 16)
)
return { 'kept' }
