-- What sign_in.lua and sign_out.lua share; it stands before them.
-- KEYS: devices, ids, online, gone, unnamed, then reported and withdrawn of each candidate.
--
-- devices: id -> '<epoch> <named> <online> <since> <json>'; the JSON is empty while only the end of
--          its socket is known.
-- ids:     ids with JSON, for pages in their order.
-- online, gone: the same ids by `since`.
-- unnamed: by `since`, what is kept for a while only: gone devices without a name of their own, and
--          those of which no sign-in is known.
--
-- A candidate is a device that may have to go: the keys of its values must be declared, so a call
-- that finds others changes nothing, answers {'missing', {ids}}, and is sent again with these. They
-- are more than have to go, because another call may remove the first of them meanwhile.
local devices, ids, online, gone, unnamed = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local CANDIDATE_KEYS = 6

local function read(id)
  local text = redis.call('HGET', devices, id)
  if not text then
    return nil
  end
  local epoch, named, is_online, since, json =
    string.match(text, '^(%d+) (%d) (%d) (%-?%d+) (.*)$')
  return { epoch = epoch, named = named, online = is_online, since = since, json = json }
end

local function waits(entry)
  return entry.online == '0' and entry.named == '0'
end

-- Those who go once `entry` is stored, at most limits.victims, the longest gone first; and the
-- candidates, who would be next.
local function victims_of(id, entry, limits)
  local victims, chosen, candidates = {}, {}, {}
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
  local too_many = #waiting - limits.unnamed
  for i = 1, math.min(too_many > 0 and #waiting or 0, limits.victims) do
    candidates[i] = waiting[i][2]
    if i <= too_many then
      choose(waiting[i][2])
    end
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
    if count <= limits.devices then
      return
    end
    -- The device itself and those chosen already may stand among them.
    for _, victim in ipairs(redis.call('ZRANGE', set, 0, limits.victims + #victims)) do
      if victim ~= id and not chosen[victim] then
        candidates[#candidates + 1] = victim
        if count > limits.devices and #victims < limits.victims then
          choose(victim)
          count = count - 1
        end
      end
    end
  end
  choose_from(gone)
  choose_from(online)
  return victims, candidates
end

-- Stores `entry` and removes who has to go. Candidates stand in ARGV from `first`.
-- Answers {'kept', {ids of removed devices}} or {'missing', {ids}}.
local function store(id, entry, limits, first)
  local keys = {}
  for i = first, #ARGV do
    keys[ARGV[i]] = CANDIDATE_KEYS + (i - first) * 2
  end
  local victims, candidates = victims_of(id, entry, limits)
  for _, victim in ipairs(victims) do
    if not keys[victim] then
      return { 'missing', candidates }
    end
  end

  local front = entry.epoch .. ' ' .. entry.named .. ' ' .. entry.online .. ' ' .. entry.since
  redis.call('HSET', devices, id, front .. ' ' .. entry.json)
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

  local removed = {}
  for _, victim in ipairs(victims) do
    if redis.call('ZREM', ids, victim) == 1 then
      removed[#removed + 1] = victim
    end
    redis.call('HDEL', devices, victim)
    for _, set in ipairs({ online, gone, unnamed }) do
      redis.call('ZREM', set, victim)
    end
    redis.call('DEL', KEYS[keys[victim]], KEYS[keys[victim] + 1])
  end
  return { 'kept', removed }
end

