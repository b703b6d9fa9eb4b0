-- Makes an account, or says what is in its way and changes nothing.
-- KEYS: <key>, tokens, emails. ARGV: key, email, password hash.
-- Answers 'now', 'email' or 'key'.
local account, tokens, emails = KEYS[1], KEYS[2], KEYS[3]
local key, email, password = ARGV[1], ARGV[2], ARGV[3]

if redis.call('SISMEMBER', emails, email) == 1 then
  return 'email'
end
if redis.call('SISMEMBER', tokens, key) == 1 or redis.call('EXISTS', account) == 1 then
  return 'key'
end
redis.call('HSET', account, 'email', email, 'password', password)
redis.call('SADD', tokens, key)
redis.call('SADD', emails, email)
return 'now'
