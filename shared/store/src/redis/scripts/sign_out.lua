-- The socket of a sign-in ended. devices.lua stands before it.
-- ARGV: unnamed devices at most, victims at most, device, epoch (20 digits), at.
local limits = { unnamed = tonumber(ARGV[1]), victims = tonumber(ARGV[2]), devices = math.huge }
local id, epoch, at = ARGV[3], ARGV[4], ARGV[5]

local entry = read(id)
local ended = entry and entry.epoch == epoch and entry.online == '0'
if ended or entry and entry.epoch > epoch then
  return { {}, to_sweep(limits) }
end
-- Its sign-in may come late, from another var-store: the end of the socket is remembered for it.
entry = entry or { named = '0', json = '' }
entry.epoch, entry.online, entry.since = epoch, '0', at
return store(id, entry, limits)
