-- Take the lease and read the window, or take or keep a place in the queue.
-- KEYS: meta turns digests wait branches ratings vectors
-- ARGV: schema owner lease_ms queue_limit must_exist interrupt digest_turns ticket_ms grave_ms, then what the
--       caller has of it already: known_commit known_turns known_memory
-- -> begun exists fence commit memory start fields window digests | busy position expires_ms | missing
--    | newer version
--    `window` is the turns from `start` on, those before are known; `fields` may be the volatile ones only
local meta, turns, digests, wait, branches, ratings, vectors = unpack(KEYS)
local owner, lease_ms, queue_limit = ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local must_exist, interrupt, digest_turns = ARGV[5] == '1', ARGV[6] == '1', tonumber(ARGV[7])
local ticket_ms, grave_ms = tonumber(ARGV[8]), tonumber(ARGV[9])
local known_commit, known_turns, known_memory = ARGV[10], tonumber(ARGV[11]), ARGV[12]

local refusal = newer_schema(meta)
if refusal then
  return refusal
end
local now = server_ms()
local held = redis.call(
  'HMGET', meta, 'owner', 'fence', 'until', 'created_at', 'cut', 'base', 'turn_count', 'done', 'rewritten',
  'memory_mark'
)
local holder, fence, expires = held[1], tonumber(held[2] or 0), tonumber(held[3] or 0)
local exists, cut, base, count = held[4], tonumber(held[5] or 0), tonumber(held[6] or 0), tonumber(held[7] or 0)
if must_exist and not exists then
  return { 'missing' }
end

-- -> tickets ahead of ours, tickets in all, our arrival (nil without a ticket), the last arrival
local function place()
  local all, ahead, waiting, last = redis.call('HGETALL', wait), 0, 0, 0
  local arrivals, ours = {}, nil
  for i = 1, #all, 2 do
    local arrival, seen = string.match(all[i + 1], '^(%d+) (%d+)$')
    if tonumber(seen) < now - ticket_ms then
      redis.call('HDEL', wait, all[i])
    else
      arrival = tonumber(arrival)
      waiting, last = waiting + 1, math.max(last, arrival)
      arrivals[waiting] = arrival
      if all[i] == owner then
        ours = arrival
      end
    end
  end
  for _, arrival in ipairs(arrivals) do
    if ours == nil or arrival < ours then
      ahead = ahead + 1
    end
  end
  return ahead, waiting, ours, last
end

if holder ~= owner then
  local ahead, waiting, ours, last = place()
  local free = expires <= now
  if ahead > 0 or not free then
    local expires_ms = math.max(0, expires - now)
    if not ours and waiting >= queue_limit then
      return { 'busy', -1, expires_ms }
    end
    redis.call('HSET', wait, owner, digits(ours or last + 1) .. ' ' .. digits(now))
    redis.call('PEXPIRE', wait, ticket_ms)
    if interrupt and not free then
      redis.call('HSET', meta, 'interrupt', fence)
    end
    return { 'busy', ahead, expires_ms }
  end
  if ours then
    redis.call('HDEL', wait, owner)
  end
  fence = fence + 1
end

redis.call('HSET', meta, 'owner', owner, 'fence', fence, 'until', digits(now + lease_ms))
local needed_ms = math.max(grave_ms, 2 * lease_ms)
if exists then
  outlive(now, 2 * lease_ms, { meta, turns, digests, branches, ratings, vectors })
else
  redis.call('HSET', meta, 'v', ARGV[1])
  redis.call('PEXPIRE', meta, needed_ms)
end
local newest = {}
if digest_turns > 0 then
  newest = redis.call('LRANGE', digests, -digest_turns, -1)
end
local commit, memory, start, fields = newest_commit(held[8]), held[10] or '', cut, FIELDS
-- Where turns got lost, the caller is to see it: the last one is there and none behind it. (LLEN is no right that
-- the documented rule gives.)
local is_whole = count == base or #redis.call('LRANGE', turns, count - base - 1, count - base) == 1
if exists and is_whole and has_only_grown(held[8], known_commit, held[9]) then
  start = math.max(cut, known_turns)
  if commit == known_commit and memory == known_memory then
    fields = VOLATILE
  end
end
local window = start < count and redis.call('LRANGE', turns, start - base, -1) or {}
return {
  'begun', exists and 1 or 0, fence, commit, memory, start, redis.call('HMGET', meta, unpack(fields)),
  packed(window), newest,
}
