-- Deletes the values of devices that are kept no more, unless they came back meanwhile.
-- KEYS: removed, then reported and withdrawn of each device. ARGV: the devices.
for i, device in ipairs(ARGV) do
  if redis.call('SREM', KEYS[1], device) == 1 then
    redis.call('DEL', KEYS[i * 2], KEYS[i * 2 + 1])
  end
end
