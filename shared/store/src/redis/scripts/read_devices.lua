-- Devices with their values, at one moment. A script, because a full server refuses a transaction
-- even when it only reads.
-- KEYS: devices, then reported of each device. ARGV: the devices.
-- Answers {device or nil, {name, value, …}} for each.
local answer = {}
for i, device in ipairs(ARGV) do
  answer[i] = {
    redis.call('HGET', KEYS[1], device),
    redis.call('HGETALL', KEYS[i + 1]),
  }
end
return answer
