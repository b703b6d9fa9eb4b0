-- What sign_in.lua and sign_out.lua share; it stands before them.
-- KEYS: devices, ids, online, gone, unnamed, removed, then reported and withdrawn of the device.
-- Answers {{ids of devices that are kept no more}, {ids of which sweep.lua is to delete values}}.
--
-- devices: id -> '<epoch> <seq> <named> <online> <since> <gone> <json>'; the JSON is empty while only
--          the end of its socket is known.
-- ids:     ids with JSON, for pages in their order.
-- online, gone: the same ids by `since`.
-- unnamed: by `since`, what is kept for a while only: gone devices without a name of their own, and
--          those of which no sign-in is known.
-- removed: devices that are kept no more, but whose values are still to be deleted: keys must be
--          declared, and who goes is known only here. Nobody sees such values; whoever comes back
--          deletes them first.
local devices, ids, online, gone, unnamed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local removed, reported, withdrawn = KEYS[6], KEYS[7], KEYS[8]

local function read(id)
  local text = redis.call('HGET', devices, id)
  if not text then
    return nil
  end
  local epoch, seq, named, is_online, since, how, json =
    string.match(text, '^(%d+) (%d+) (%d) (%d) (%-?%d+) (%a+) (.*)$')
  return {
    epoch = epoch,
    seq = seq,
    named = named,
    online = is_online,
    since = since,
    gone = how,
    json = json,
  }
end

-- Entries of the same device for other sessions, at most 64: {id, entry}. An id of two parts has a tab
-- between them; the newline is the character behind it.
local function other_sessions(id)
  local device = string.match(id, '^([^\t]*)\t')
  if not device then
    return {}
  end
  local others = {}
  local from, to = '[' .. device .. '\t', '(' .. device .. '\n'
  for _, other in ipairs(redis.call('ZRANGEBYLEX', ids, from, to, 'LIMIT', 0, 64)) do
    if other ~= id then
      others[#others + 1] = { other, read(other) }
    end
  end
  return others
end

local function text_of(entry)
  return entry.epoch .. ' ' .. entry.seq .. ' ' .. entry.named .. ' ' .. entry.online .. ' '
    .. entry.since .. ' ' .. entry.gone .. ' ' .. entry.json
end

-- Shows an entry to nobody any more. Its end stays known for a while, among those of devices without a
-- name, so that its sign-in cannot come back late.
local function hide(id, entry)
  entry.named, entry.json = '0', ''
  redis.call('HSET', devices, id, text_of(entry))
  for _, set in ipairs({ ids, online, gone }) do
    redis.call('ZREM', set, id)
  end
  redis.call('ZADD', unnamed, entry.since, id)
  redis.call('SADD', removed, id)
end

local function waits(entry)
  return entry.online == '0' and entry.named == '0'
end

-- Those who go once `entry` is stored, at most limits.victims, the longest gone first.
local function victims_of(id, entry, limits)
  local victims, chosen = {}, {}
  local function choose(victim)
    chosen[victim] = true
    victims[#victims + 1] = victim
  end

  local waiting, all = {}, redis.call('ZRANGE', unnamed, 0, -1, 'WITHSCORES')
  for i = 1, #all, 2 do
    if all[i] ~= id then
      waiting[#waiting + 1] = { tonumber(all[i + 1]), all[i] }
    end
  end
  if waits(entry) then
    waiting[#waiting + 1] = { tonumber(entry.since), id }
  end
  table.sort(waiting, function(left, right)
    if left[1] ~= right[1] then
      return left[1] < right[1]
    end
    return left[2] < right[2]
  end)
  for i = 1, math.min(#waiting - limits.unnamed, limits.victims) do
    choose(waiting[i][2])
  end

  local count = redis.call('ZCARD', ids)
  if not redis.call('ZSCORE', ids, id) then
    count = count + 1
  end
  for _, victim in ipairs(victims) do
    if redis.call('ZSCORE', ids, victim) then
      count = count - 1
    end
  end
  local function choose_from(set)
    local excess = math.min(count - limits.devices, limits.victims)
    if excess <= 0 then
      return
    end
    -- The device itself and those chosen already may stand among them.
    for _, victim in ipairs(redis.call('ZRANGE', set, 0, excess + #victims)) do
      if count <= limits.devices or #victims >= limits.victims then
        return
      end
      if victim ~= id and not chosen[victim] then
        choose(victim)
        count = count - 1
      end
    end
  end
  choose_from(gone)
  choose_from(online)
  return victims
end

local function to_sweep(limits)
  return redis.call('SRANDMEMBER', removed, limits.victims)
end

-- Stores `entry` and removes who has to go.
local function store(id, entry, limits)
  local victims = victims_of(id, entry, limits)

  if entry.json ~= '' and redis.call('SREM', removed, id) == 1 then
    redis.call('DEL', reported, withdrawn)
  end
  redis.call('HSET', devices, id, text_of(entry))
  if entry.json ~= '' then
    local is, was = gone, online
    if entry.online == '1' then
      is, was = online, gone
    end
    redis.call('ZADD', ids, 0, id)
    redis.call('ZADD', is, entry.since, id)
    redis.call('ZREM', was, id)
  end
  if waits(entry) then
    redis.call('ZADD', unnamed, entry.since, id)
  else
    redis.call('ZREM', unnamed, id)
  end

  local kept_no_more = {}
  for _, victim in ipairs(victims) do
    if redis.call('ZREM', ids, victim) == 1 then
      kept_no_more[#kept_no_more + 1] = victim
    end
    redis.call('HDEL', devices, victim)
    for _, set in ipairs({ online, gone, unnamed }) do
      redis.call('ZREM', set, victim)
    end
    redis.call('SADD', removed, victim)
  end
  return { kept_no_more, to_sweep(limits) }
end

