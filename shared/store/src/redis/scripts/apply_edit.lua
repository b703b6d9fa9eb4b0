-- Applies an edit if it is the next one.
-- KEYS: state, wanted.
-- ARGV: revision before it, its revision, epoch, sequence (numbers in 20 digits), then for each
-- change a field and its wanted value; an empty value unsets.
-- Answers {'now' or 'before' or 'gap', sequence of the last edit in force}.
local state, wanted = KEYS[1], KEYS[2]
local base, revision, epoch, sequence = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local zero = string.rep('0', 20)

local stored = redis.call('HMGET', state, 'revision', 'sequence', 'epoch')
local stored_revision, stored_sequence = stored[1] or zero, stored[2] or zero
-- Revisions of another epoch cannot be compared; that one was made because the counter may have gone
-- back, and its place in the edit log says that it is later.
local comparable = stored_revision == zero or stored[3] == epoch
redis.call('HLEN', wanted) -- A key of another type fails here, before the first write.

if stored_sequence >= sequence or comparable and stored_revision >= revision then
  return { 'before', stored_sequence }
end
if comparable and stored_revision ~= base then
  return { 'gap', stored_sequence }
end
for i = 5, #ARGV, 2 do
  if ARGV[i + 1] == '' then
    redis.call('HDEL', wanted, ARGV[i])
  else
    redis.call('HSET', wanted, ARGV[i], ARGV[i + 1])
  end
end
redis.call('HSET', state, 'revision', revision, 'epoch', epoch, 'sequence', sequence)
return { 'now', sequence }
