-- What every script of a conversation's slot begins with. ARGV[1] is the schema version that the caller
-- knows. Each script answers with an array whose first element says what happened.

-- In the order in which redis_store.py reads them.
local FIELDS = {
  'user', 'character', 'persona', 'epoch', 'turn_count', 'cut', 'memories', 'shows', 'grows_to',
  'memory_version', 'branches', 'past', 'base', 'metadata', 'binding', 'stored', 'created_at', 'updated_at',
}

-- Those of them that the caller cannot know, though it knows the newest commit and the newest memory.
local VOLATILE = { 'binding', 'base', 'metadata', 'stored' }

-- The newest of the commits that are remembered; empty where there is none.
local function newest_commit(done)
  return string.match(done or '', '^.*,([^,]+),$') or ''
end

-- Whether turns were only added since a commit that is remembered. `rewritten`: the last that replaced some.
local function has_only_grown(done, commit, rewritten)
  local at = commit ~= '' and string.find(done or '', ',' .. commit .. ',', 1, true)
  return at and (string.find(done, ',' .. (rewritten or '') .. ',', 1, true) or 0) <= at
end

local function server_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- Numbers of 14 digits and more would become '1e+14' by themselves.
local function digits(number)
  return string.format('%.0f', number)
end

-- Conversations written by a newer program are left alone: its fields may mean something else.
local function newer_schema(meta)
  local version = redis.call('HGET', meta, 'v')
  if version and tonumber(version) > tonumber(ARGV[1]) then
    return { 'newer', version }
  end
end

-- Values that are msgpack already, as one msgpack array: one string to parse instead of hundreds.
local function packed(values)
  return struct.pack('>BI4', 0xdd, #values) .. table.concat(values)
end

-- Versions of the memory, oldest first, as they stand in their field: -> { { covers_to, bytes }, ... }
local function memory_versions(blob)
  local found, at = {}, 1
  while at + 8 <= #blob do
    local covers_to, length = struct.unpack('>I4I4', string.sub(blob, at, at + 7))
    found[#found + 1] = { covers_to = covers_to, bytes = string.sub(blob, at, at + 7 + length) }
    at = at + 8 + length
  end
  return found
end

-- One version more, in its place, unless there is one that covers as many turns. An empty one is none.
local function with_version(versions, bytes)
  for _, version in ipairs(memory_versions(bytes)) do
    local at = 1
    while versions[at] and versions[at].covers_to < version.covers_to do
      at = at + 1
    end
    if not versions[at] or versions[at].covers_to ~= version.covers_to then
      table.insert(versions, at, version)
    end
  end
end

-- Those of the versions that cover at most `covers_to` turns, as they stand in their field.
local function joined_versions(versions, covers_to)
  local fit = {}
  for _, version in ipairs(versions) do
    if version.covers_to <= covers_to then
      fit[#fit + 1] = version.bytes
    end
  end
  return table.concat(fit)
end

-- The list with its first `count` elements only.
local function shortened(list, count)
  if count == 0 then
    redis.call('UNLINK', list)
  else
    redis.call('LTRIM', list, 0, count - 1)
  end
end

-- A turn must not outlive its conversation: give keys that are about to expire the time that it needs.
local function outlive(now, needed_ms, keys)
  local left = redis.call('PTTL', keys[1])
  if left >= 0 and left < needed_ms then
    for _, key in ipairs(keys) do
      redis.call('PEXPIREAT', key, digits(now + needed_ms))
    end
  end
end
