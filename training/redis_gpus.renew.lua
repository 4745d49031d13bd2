-- Keeps a lease, or gives it up. KEYS: the GPUs. ARGV: its fence, milliseconds (0: give up what it still has).
-- Returns 1 if it had all of them, otherwise 0; it is kept only then.
local mine = {}
for n = 1, #KEYS do
  if redis.call('HGET', KEYS[n], 'fence') == ARGV[1] then
    mine[#mine + 1] = KEYS[n]
  end
end
for n = 1, #mine do
  if ARGV[2] == '0' then
    redis.call('DEL', mine[n])
  elseif #mine == #KEYS then
    redis.call('PEXPIRE', mine[n], ARGV[2])
  end
end
return #mine == #KEYS and 1 or 0
