-- Write a change, all of it or nothing, and free the lease.
-- KEYS: meta turns digests branches
-- ARGV: schema owner fence ttl_ms remembered keep save_branch cut new_epoch at field_count turn_count,
--       then field_count times name value, then turn_count turns, then as many digests
-- -> done fields | erased | lost | keep turn_count | cut turn_count | newer version
local meta, turns, digests, branches = unpack(KEYS)
local owner, fence, ttl_ms, remembered = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local keep, save_branch, wanted_cut = tonumber(ARGV[6]), ARGV[7] == '1', tonumber(ARGV[8])
local new_epoch, at = ARGV[9] == '1', ARGV[10]
local field_count, appended = tonumber(ARGV[11]), tonumber(ARGV[12])
local first_turn = 13 + 2 * field_count

local refusal = newer_schema(meta)
if refusal then
  return refusal
end
local stored = redis.call(
  'HMGET', meta, 'owner', 'fence', 'erased', 'done', 'turn_count', 'cut', 'branches', 'created_at', 'memories'
)
local erased, done = tonumber(stored[3] or 0), stored[4] or ','
local old_count, old_cut, branch_count = tonumber(stored[5] or 0), tonumber(stored[6] or 0), tonumber(stored[7] or 0)

if tonumber(fence) <= erased then
  return { 'erased' }
end
if string.find(done, ',' .. fence .. ',', 1, true) then
  return { 'done', redis.call('HMGET', meta, unpack(FIELDS)) }
end
if stored[1] ~= owner or stored[2] ~= fence then
  return { 'lost' }
end
local count = keep + appended
if keep < 0 or keep > old_count then
  return { 'keep', old_count }
end
if wanted_cut and (wanted_cut < 0 or wanted_cut > count) then
  return { 'cut', count }
end

if keep < old_count then
  if save_branch then
    branch_count = branch_count + 1
    local replaced = packed(redis.call('LRANGE', turns, keep, -1))
    redis.call('HSET', branches, branch_count, struct.pack('>BBI4', 0x92, 0xce, keep) .. replaced)
  end
  local blob = stored[9] or ''
  local still_true = joined_versions(memory_versions(blob), keep, #blob)
  if still_true ~= blob then
    redis.call('HSET', meta, 'memories', still_true)
    redis.call('HINCRBY', meta, 'memory_version', 1)
  end
  if keep == 0 then
    redis.call('UNLINK', turns, digests)
  else
    redis.call('LTRIM', turns, 0, keep - 1)
    redis.call('LTRIM', digests, 0, keep - 1)
  end
end

-- A script's stack holds a few thousand values, an imported dialogue may have more turns.
local function push(list, first)
  for from = first, first + appended - 1, 1000 do
    redis.call('RPUSH', list, unpack(ARGV, from, math.min(from + 999, first + appended - 1)))
  end
end
push(turns, first_turn)
push(digests, first_turn + appended)

local cut
if keep < old_count then
  cut = wanted_cut or math.min(old_cut, keep)
else
  cut = math.max(old_cut, wanted_cut or old_cut)
end
if field_count > 0 then
  redis.call('HSET', meta, unpack(ARGV, 13, first_turn - 1))
end
if new_epoch then
  redis.call('HINCRBY', meta, 'epoch', 1)
end
done = done .. fence .. ','
while select(2, string.gsub(done, ',', '')) > remembered + 1 do
  done = string.gsub(done, '^,[^,]*', '', 1)
end
redis.call(
  'HSET', meta, 'turn_count', count, 'cut', cut, 'branches', branch_count, 'done', done,
  'created_at', stored[8] or at, 'updated_at', at
)
redis.call('HDEL', meta, 'owner', 'until')

local expires_at = ttl_ms > 0 and digits(server_ms() + ttl_ms)
for _, key in ipairs(KEYS) do
  if expires_at then
    redis.call('PEXPIREAT', key, expires_at)
  else
    redis.call('PERSIST', key)
  end
end
return { 'done', redis.call('HMGET', meta, unpack(FIELDS)) }
