-- Stores what a device says in one line. Reads and decides first, writes last.
-- KEYS: reported, withdrawn (both of the device), devices, ids, gone, unnamed, removed, writers,
-- <key>:vs.
-- ARGV: device, stamp (40 digits), at, '1' if the line resets, values at most, withdrawn names
-- remembered at most, names in <key>:vs at most, the device if nobody knows it, number of values,
-- for each value its name, type, text, mark and JSON; then withdrawn names. No name stands twice
-- among the values.
-- Answers {names left out, {names taken}}.
--
-- reported:  name -> '<stamp> <mark> <json>'.
-- withdrawn: 'n<name>' -> stamp of its end, 'r' -> stamp of the last reset: without them, an older
--            line that is delivered again would bring back what is gone.
-- writers:   name -> the device whose value stands in <key>:vs.
local reported, withdrawn, devices, ids = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local gone, unnamed, removed, writers, last = KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local device, stamp, at, reset = ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1'
local vars_max, withdrawn_max, last_max = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local unknown, values = ARGV[8], tonumber(ARGV[9])
local FIRST, FIELDS = 10, 5
local after_values = FIRST + values * FIELDS

local function stamp_of(entry)
  return string.sub(entry, 1, 40)
end

local function mark_of(entry)
  return string.match(entry, '^%d+ (%S+)')
end

-- A later report of a revision says the same again: the first mark of it stays.
local function mark_that_stays(entry, mark)
  local before = entry and mark_of(entry)
  local revision = string.match(mark, '^%d+:')
  if before and revision and string.match(before, '^%d+:') == revision then
    return before
  end
  return mark
end

-- Each key is asked before the first write: one of another type fails here.
local known = redis.call('HEXISTS', devices, device) == 1
for _, set in ipairs({ ids, gone, unnamed }) do
  redis.call('ZCARD', set)
end
local last_count = redis.call('HLEN', last)
redis.call('HLEN', writers)
if redis.call('SISMEMBER', removed, device) == 1 then
  -- The device was removed, its old values are only not deleted yet. Nobody sees them.
  redis.call('DEL', reported, withdrawn)
  redis.call('SREM', removed, device)
end
local count = redis.call('HLEN', reported)
local floor = redis.call('HGET', withdrawn, 'r')
if floor and stamp < floor then
  return { 0, {} }
end

local stored, ends = {}, {}
if reset then
  local all = redis.call('HGETALL', reported)
  for i = 1, #all, 2 do
    stored[all[i]] = all[i + 1]
  end
end
local function load(name)
  if not reset then
    stored[name] = redis.call('HGET', reported, name) or nil
  end
  ends[name] = redis.call('HGET', withdrawn, 'n' .. name) or nil
end
for i = FIRST, after_values - 1, FIELDS do
  load(ARGV[i])
end
for i = after_values, #ARGV do
  load(ARGV[i])
end

-- Decides. `forgotten` and `ended` are names without a value from now on; `ended` are remembered.
local forgotten, ended, taken, changed, too_many = {}, {}, {}, {}, 0
if reset then
  local named = {}
  for i = FIRST, after_values - 1, FIELDS do
    named[ARGV[i]] = true
  end
  for name, entry in pairs(stored) do
    if not named[name] and stamp_of(entry) < stamp then
      forgotten[#forgotten + 1] = name
      count = count - 1
    end
  end
end
for i = FIRST, after_values - 1, FIELDS do
  local name, entry = ARGV[i], stored[ARGV[i]]
  local newest = entry and stamp_of(entry) or ends[name]
  if not newest or newest <= stamp then
    if not entry and count >= vars_max then
      too_many = too_many + 1
    else
      local new = stamp .. ' ' .. mark_that_stays(entry, ARGV[i + 3]) .. ' ' .. ARGV[i + 4]
      if not entry then
        count = count + 1
      end
      if new ~= entry then
        changed[#changed + 1] = i
        stored[name] = new
      end
      taken[#taken + 1] = name
    end
  end
end
for i = after_values, #ARGV do
  local name = ARGV[i]
  local entry = stored[name]
  local newest = entry and stamp_of(entry) or ends[name]
  if not newest or newest <= stamp then
    ended[#ended + 1] = name
  end
end
local owners = {}
local function load_owner(name)
  owners[name] = redis.call('HGET', writers, name) or device
end
for _, name in ipairs(forgotten) do
  load_owner(name)
end
for _, name in ipairs(ended) do
  load_owner(name)
end

-- Writes.
if not known then
  -- Its sign-in comes late, or was lost: the device is gone and without a name until it comes.
  redis.call('HSET', devices, device, unknown)
  redis.call('ZADD', ids, 0, device)
  redis.call('ZADD', gone, at, device)
  redis.call('ZADD', unnamed, at, device)
end
local function drop(name)
  redis.call('HDEL', reported, name)
  if owners[name] == device then
    last_count = last_count - redis.call('HDEL', last, name .. ':type', name .. ':value')
    redis.call('HDEL', writers, name)
  end
end
if reset then
  -- The stamp of the reset covers every end before it.
  local all = redis.call('HGETALL', withdrawn)
  for i = 1, #all, 2 do
    if all[i + 1] <= stamp then
      redis.call('HDEL', withdrawn, all[i])
    end
  end
  redis.call('HSET', withdrawn, 'r', stamp)
end
for _, name in ipairs(forgotten) do
  drop(name)
end
for _, i in ipairs(changed) do
  local name = ARGV[i]
  redis.call('HSET', reported, name, stored[name])
  redis.call('HDEL', withdrawn, 'n' .. name)
  -- A name is two fields.
  if redis.call('HEXISTS', last, name .. ':type') == 1 or last_count < last_max * 2 then
    last_count = last_count
      + redis.call('HSET', last, name .. ':type', ARGV[i + 1], name .. ':value', ARGV[i + 2])
    redis.call('HSET', writers, name, device)
    owners[name] = device
  end
end
for _, name in ipairs(ended) do
  drop(name)
  redis.call('HSET', withdrawn, 'n' .. name, stamp)
end
local remembered = redis.call('HLEN', withdrawn)
if floor or reset then
  remembered = remembered - 1 -- 'r' is none.
end
if remembered > withdrawn_max then
  -- Half of them go at once, so that this is rare.
  local oldest, all = {}, redis.call('HGETALL', withdrawn)
  for i = 1, #all, 2 do
    if all[i] ~= 'r' then
      oldest[#oldest + 1] = { all[i + 1], all[i] }
    end
  end
  table.sort(oldest, function(left, right)
    return left[1] < right[1]
  end)
  for i = 1, #oldest - math.floor(withdrawn_max / 2) do
    redis.call('HDEL', withdrawn, oldest[i][2])
  end
end
return { too_many, taken }
