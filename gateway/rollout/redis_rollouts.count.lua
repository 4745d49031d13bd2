-- Adds to counters. KEYS: an alias's book. ARGV: field and number, again and again.
for at = 1, #ARGV, 2 do
  redis.call('HINCRBY', KEYS[1], ARGV[at], ARGV[at + 1])
end
return 1
