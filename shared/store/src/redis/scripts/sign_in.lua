-- A device signed in. devices.lua stands before it.
-- ARGV: unnamed devices at most, victims at most, devices at most, device, epoch and sequence (20
-- digits each), named, online, since, JSON.
local limits =
  { unnamed = tonumber(ARGV[1]), victims = tonumber(ARGV[2]), devices = tonumber(ARGV[3]) }
local id = ARGV[4]
local entry =
  { epoch = ARGV[5], seq = ARGV[6], named = ARGV[7], online = ARGV[8], since = ARGV[9], gone = 'lost',
    json = ARGV[10] }

local stored = read(id)
if stored and stored.epoch .. stored.seq > entry.epoch .. entry.seq then
  return { {}, to_sweep(limits) }
end
if stored and stored.epoch == entry.epoch and stored.online == '0' then
  -- The same sign-in, delivered again or late: its socket has ended already.
  entry.online, entry.since, entry.gone = '0', stored.since, stored.gone
elseif stored and stored.epoch == entry.epoch and stored.json ~= '' then
  -- It says something else about itself, and is there since it came.
  entry.since = stored.since
end
local over = {}
for _, other in ipairs(other_sessions(id)) do
  if other[2].online == '0' and other[2].epoch < entry.epoch then
    hide(other[1], other[2])
    over[#over + 1] = other[1]
  end
end
local answer = store(id, entry, limits)
for _, gone_id in ipairs(answer[1]) do
  over[#over + 1] = gone_id
end
return { over, answer[2] }
