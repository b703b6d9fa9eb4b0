-- The wanted document at one moment.
-- KEYS: state, wanted.
-- Answers {revision, epoch, sequence, {wanted values}}; empty texts when there was no edit.
local state = redis.call('HMGET', KEYS[1], 'revision', 'epoch', 'sequence')
return { state[1] or '', state[2] or '', state[3] or '', redis.call('HVALS', KEYS[2]) }
