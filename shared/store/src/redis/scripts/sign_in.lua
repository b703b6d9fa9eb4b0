-- A device signed in. devices.lua stands before it.
-- ARGV: unnamed devices at most, victims at most, devices at most, device, epoch (20 digits), named,
-- online, since, JSON.
local limits =
  { unnamed = tonumber(ARGV[1]), victims = tonumber(ARGV[2]), devices = tonumber(ARGV[3]) }
local id = ARGV[4]
local entry =
  { epoch = ARGV[5], named = ARGV[6], online = ARGV[7], since = ARGV[8], json = ARGV[9] }

local stored = read(id)
if stored and stored.epoch > entry.epoch then
  return { {}, to_sweep(limits) }
end
if stored and stored.epoch == entry.epoch and stored.online == '0' then
  -- The same sign-in, delivered again or late: its socket has ended already.
  entry.online, entry.since = '0', stored.since
end
return store(id, entry, limits)
