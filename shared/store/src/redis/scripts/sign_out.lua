-- The socket of a sign-in ended. devices.lua stands before it.
-- ARGV: unnamed devices at most, victims at most, device, epoch (20 digits), at, how.
local limits = { unnamed = tonumber(ARGV[1]), victims = tonumber(ARGV[2]), devices = math.huge }
local id, epoch, at = ARGV[3], ARGV[4], ARGV[5]

local entry = read(id)
local ended = entry and entry.epoch == epoch and entry.online == '0'
if ended or entry and entry.epoch > epoch then
  return { {}, to_sweep(limits) }
end
-- Its sign-in may come late, from another var-store: the end of the socket is remembered for it.
entry = entry or { named = '0', json = '' }
if entry.epoch ~= epoch then
  entry.seq = string.rep('0', 20)
end
entry.epoch, entry.online, entry.since, entry.gone = epoch, '0', at, ARGV[6]
local answer = store(id, entry, limits)
if entry.json ~= '' then
  for _, other in ipairs(other_sessions(id)) do
    if other[2].online == '1' and other[2].epoch > epoch then
      hide(id, entry)
      return { { id, unpack(answer[1]) }, to_sweep(limits) }
    end
  end
end
return answer
