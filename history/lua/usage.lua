-- Add what a process wrote and erased to its tenant's total, once, and say what that is now.
-- KEYS: total    ARGV: name of this addition, how many names are remembered, turns, bytes
-- -> turns bytes
local total, name, remembered = KEYS[1], ARGV[1], tonumber(ARGV[2])
local stored = redis.call('HMGET', total, 'turns', 'bytes', 'done')
local turns, bytes, done = tonumber(stored[1] or 0), tonumber(stored[2] or 0), stored[3] or ','

if name ~= '' and not string.find(done, ',' .. name .. ',', 1, true) then
  turns, bytes = math.max(0, turns + ARGV[3]), math.max(0, bytes + ARGV[4])
  done = done .. name .. ','
  while select(2, string.gsub(done, ',', '')) > remembered + 1 do
    done = string.gsub(done, '^,[^,]*', '', 1)
  end
  redis.call(
    'HSET', total, 'turns', string.format('%.0f', turns), 'bytes', string.format('%.0f', bytes), 'done', done
  )
end
return { string.format('%.0f', turns), string.format('%.0f', bytes) }
