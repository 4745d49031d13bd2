-- Write a change, all of it or nothing, and free the lease.
-- KEYS: meta turns digests branches ratings vectors
-- ARGV: schema owner fence ttl_ms remembered keep save_branch cut new_epoch at field_count turn_count
--       into_branch branch_count shown_version max_turns max_bytes, then what the caller has of it already:
--       known_commit known_memory, then field_count times name value, then turn_count turns, then as many digests,
--       then branch_count times index branch
-- -> done turns bytes commit memory grown fields | erased | lost | keep turn_count | cut turn_count | branch number
--    | archived base | full turns bytes | newer version
--    `commit` is empty for one that was done before. `grown`: turns were added to what is known, and `fields` may
--    be the volatile ones only
local meta, turns, digests, branches = unpack(KEYS)
local owner, fence, ttl_ms, remembered = ARGV[2], ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local keep, save_branch, wanted_cut = tonumber(ARGV[6]), ARGV[7] == '1', tonumber(ARGV[8])
local new_epoch, at = ARGV[9] == '1', ARGV[10]
local field_count, appended = tonumber(ARGV[11]), tonumber(ARGV[12])
local into_branch, more_branches, shown = tonumber(ARGV[13]), tonumber(ARGV[14]), ARGV[15]
local max_turns, max_bytes = tonumber(ARGV[16]), tonumber(ARGV[17])
local known_commit, known_memory = ARGV[18], ARGV[19]
local first_turn = 20 + 2 * field_count
local first_branch = first_turn + 2 * appended

local refusal = newer_schema(meta)
if refusal then
  return refusal
end
local stored = redis.call(
  'HMGET', meta, 'owner', 'fence', 'done', 'turn_count', 'cut', 'branches', 'created_at', 'memory_mark',
  'base', 'past', 'stored'
)
local base, done = tonumber(stored[9] or 0), stored[3] or ','
local old_count, old_cut, branch_count = tonumber(stored[4] or 0), tonumber(stored[5] or 0), tonumber(stored[6] or 0)

-- Whoever holds a lease has left a fence here.
if not stored[2] then
  return { 'erased' }
end
-- Fences begin anew behind an erasure, owners never come twice.
local us = fence .. '.' .. string.sub(redis.sha1hex(owner), 1, 16)
if string.find(done, ',' .. us .. ',', 1, true) then
  return { 'done', 0, 0, '', '', 0, redis.call('HMGET', meta, unpack(FIELDS)) }
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
local head = struct.pack('>BBI4', 0x92, 0xce, keep)
local replaces = keep < old_count and save_branch
if replaces and into_branch > 0
  and string.sub(redis.call('HGET', branches, into_branch) or '', 1, #head) ~= head then
  return { 'branch', into_branch }
end
if keep < base or (wanted_cut and wanted_cut < base) then
  return { 'archived', base }
end

-- What is kept, and by how much that grows; see `limits.check_growth`.
local kept_turns, kept_bytes = string.match(stored[11] or old_count .. ' 0', '^(%d+) (%d+)$')
kept_turns, kept_bytes = tonumber(kept_turns), tonumber(kept_bytes)
local more_turns, more_bytes = appended, 0
local function branch_size(branch)
  local kind = string.byte(branch, #head + 1)
  if kind == 0xdd then
    return (struct.unpack('>I4', string.sub(branch, #head + 2, #head + 5))), #branch - #head - 5
  elseif kind == 0xdc then
    return (struct.unpack('>I2', string.sub(branch, #head + 2, #head + 3))), #branch - #head - 3
  end
  return kind - 0x90, #branch - #head - 1
end
local function counted(sign, turn_count, bytes)
  more_turns, more_bytes = more_turns + sign * turn_count, more_bytes + sign * bytes
end
for at = first_turn, first_turn + appended - 1 do
  more_bytes = more_bytes + #ARGV[at]
end
for at = first_branch, first_branch + 2 * more_branches - 1, 2 do
  counted(1, branch_size(ARGV[at + 1]))
end
if replaces and into_branch > 0 then
  counted(-1, branch_size(redis.call('HGET', branches, into_branch)))
elseif keep < old_count and not save_branch then
  local dropped = redis.call('LRANGE', turns, keep - base, -1)
  counted(-1, #dropped, #table.concat(dropped))
end
if (max_turns > 0 and more_turns > 0 and kept_turns + more_turns > max_turns)
  or (max_bytes > 0 and more_bytes > 0 and kept_bytes >= max_bytes) then
  return { 'full', kept_turns, kept_bytes }
end

-- Beside the branches, those that left at one turn are listed, so that nobody has to read all of them.
local function add_branch(index, branch)
  branch_count = branch_count + 1
  local list = 'at:' .. index
  local listed = redis.call('HGET', branches, list)
  redis.call(
    'HSET', branches, branch_count, branch, list, listed and listed .. ',' .. branch_count or branch_count
  )
end

if keep < old_count then
  if save_branch then
    local replaced = head .. packed(redis.call('LRANGE', turns, keep - base, -1))
    if into_branch > 0 then
      redis.call('HSET', branches, into_branch, replaced)
    else
      add_branch(keep, replaced)
    end
  end
  redis.call('HSET', meta, 'rewritten', us)
  local blob = redis.call('HGET', meta, 'memories') or ''
  local versions = memory_versions(blob)
  with_version(versions, shown)
  local still_true = joined_versions(versions, keep)
  if still_true ~= blob then
    redis.call('HSET', meta, 'memories', still_true)
    redis.call('HINCRBY', meta, 'memory_version', 1)
  end
  shortened(turns, keep - base)
  shortened(digests, keep)
end

-- A script's stack holds a few thousand values, an imported dialogue may have more turns.
local function push(list, first)
  for from = first, first + appended - 1, 1000 do
    redis.call('RPUSH', list, unpack(ARGV, from, math.min(from + 999, first + appended - 1)))
  end
end
push(turns, first_turn)
push(digests, first_turn + appended)
for at = first_branch, first_branch + 2 * more_branches - 1, 2 do
  add_branch(ARGV[at], ARGV[at + 1])
end

local cut
if keep < old_count then
  cut = wanted_cut or math.min(old_cut, keep)
else
  cut = math.max(old_cut, wanted_cut or old_cut)
end
-- See `store_rules.marked`.
local number, reach = string.match(stored[10] or '0 0', '^(%d+) (%d+)$')
number, reach = tonumber(number), tonumber(reach)
if keep < reach then
  number, reach = number + 1, cut
else
  reach = math.max(reach, cut)
end
if field_count > 0 then
  redis.call('HSET', meta, unpack(ARGV, 20, first_turn - 1))
end
if new_epoch then
  redis.call('HINCRBY', meta, 'epoch', 1)
end
local grown = keep == old_count and more_branches == 0 and known_commit ~= '' and known_commit == newest_commit(done)
local memory = stored[8] or ''
local fields = grown and memory == known_memory and VOLATILE or FIELDS
done = done .. us .. ','
while select(2, string.gsub(done, ',', '')) > remembered + 1 do
  done = string.gsub(done, '^,[^,]*', '', 1)
end
redis.call(
  'HSET', meta, 'turn_count', count, 'cut', cut, 'past', digits(number) .. ' ' .. digits(reach), 'branches', branch_count, 'done', done,
  'stored', digits(math.max(0, kept_turns + more_turns)) .. ' ' .. digits(math.max(0, kept_bytes + more_bytes)),
  'created_at', stored[7] or at, 'updated_at', at
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
return {
  'done', more_turns, more_bytes, us, memory, grown and 1 or 0, redis.call('HMGET', meta, unpack(fields)),
}
