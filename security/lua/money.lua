-- Money, in whole µUSD. Stands in front of each script: what is held, what was spent, by whom.
--
-- spend:<day>                       hash  spent, held, changes, epoch, before, over, past
-- spend:<day>:<a>, spend:<day>:<w>  hash  spent, held; wide = '1' where it is a <w>
-- hold:<rid>                        hash  micro_usd, max_output, day, a, w
-- holds                             zset  rid -> end of its lease, Unix ms
-- closed:<rid>                      string  '1' for a minute after a hold was settled, or two days after
--                                   its lease ended
--
-- <day> counts the days since 1970 (UTC). `spent` and `changes` only grow; `epoch` names the life of
-- a day's count, so that one which was lost and begun again is told apart, and `before` is how much
-- of `spent` belongs to earlier ones. `over` counts answers that cost more than was held for them,
-- `past` those that were longer than they might be.
--
-- KEYS[1] of every script is control. The keys of money are made from its prefix, and so have its
-- hash tag: a hold that was left open is found by its rid, and says itself what it was taken from.

local BASE = string.match(KEYS[1], '^(.*)control$')
local KEPT = '172800000'
local A_MINUTE = '60000'

local function whole(number)
  return string.format('%.0f', number == 0 and 0 or number)
end

-- A reply: its fields in lines. A worker reads one text far more cheaply than a list.
local function in_lines(...)
  local fields = { ... }
  for at, field in ipairs(fields) do
    if type(field) == 'number' then fields[at] = whole(field) end
  end
  return table.concat(fields, '\n')
end

local function spend_keys(day, visitor, wide)
  local of_day = BASE .. 'spend:' .. day
  local keys = { of_day, of_day .. ':' .. visitor }
  if wide ~= '' then keys[3] = of_day .. ':' .. wide end
  return keys
end

local function note_change(of_day)
  redis.call('HINCRBY', of_day, 'changes', '1')
end

-- Sets an amount aside, until it is settled or its lease ends.
local function open_hold(rid, day, visitor, wide, amount, max_output, lease_end)
  local keys = spend_keys(day, visitor, wide)
  for _, key in ipairs(keys) do
    redis.call('HINCRBY', key, 'held', whole(amount))
    redis.call('PEXPIRE', key, KEPT)
  end
  if keys[3] then redis.call('HSET', keys[3], 'wide', '1') end
  redis.call('HSETNX', keys[1], 'epoch', rid)
  note_change(keys[1])
  redis.call('HSET', BASE .. 'hold:' .. rid, 'micro_usd', whole(amount), 'max_output', whole(max_output),
             'day', day, 'a', visitor, 'w', wide)
  redis.call('PEXPIRE', BASE .. 'hold:' .. rid, KEPT)
  redis.call('ZADD', BASE .. 'holds', lease_end, rid)
  redis.call('PEXPIRE', BASE .. 'holds', KEPT)
end

-- Remembers for so many ms that a rid is over: what comes late about it changes nothing.
local function mark_closed(rid, kept)
  redis.call('SET', BASE .. 'closed:' .. rid, '1', 'PX', kept)
end

local function is_closed(rid)
  return redis.call('EXISTS', BASE .. 'closed:' .. rid) == 1
end

-- Charges what was held in a store that has lost the hold.
local function charge_unheld(day, visitor, wide, charged)
  local keys = spend_keys(day, visitor, wide)
  for _, key in ipairs(keys) do
    redis.call('HINCRBY', key, 'spent', whole(charged))
    redis.call('PEXPIRE', key, KEPT)
  end
  note_change(keys[1])
end

-- Moves a hold to what was spent: all of it, or what was charged instead. Returns whether it was open.
-- The first write is one that Redis takes when it is out of memory: what ends a hold always can.
local function close_hold(rid, charged)
  redis.call('ZREM', BASE .. 'holds', rid)
  local name = BASE .. 'hold:' .. rid
  local hold = redis.call('HMGET', name, 'micro_usd', 'day', 'a', 'w')
  if not hold[1] then return false end
  local amount = tonumber(hold[1])
  local keys = spend_keys(hold[2], hold[3], hold[4])
  for _, key in ipairs(keys) do
    if redis.call('HINCRBY', key, 'held', whole(-amount)) < 0 then
      redis.call('HSET', key, 'held', '0') -- the operator took the count away, and the hold was left
    end
    redis.call('HINCRBY', key, 'spent', whole(charged or amount))
  end
  note_change(keys[1])
  if charged and charged > amount then redis.call('HINCRBY', keys[1], 'over', '1') end
  redis.call('DEL', name)
  mark_closed(rid, charged and A_MINUTE or KEPT)
  return true
end

-- Holds whose lease is over: nobody will settle them, so they count in full. A few at a time.
local function close_expired(now_ms)
  local expired = redis.call('ZRANGEBYSCORE', BASE .. 'holds', '-inf', whole(now_ms), 'LIMIT', '0', '16')
  for _, rid in ipairs(expired) do close_hold(rid) end
end

-- What is known of a day: {epoch, spent, changes}.
local function total_of(of_day)
  local total = redis.call('HMGET', of_day, 'epoch', 'spent', 'changes')
  return total[1] or '', tonumber(total[2] or '0'), tonumber(total[3] or '0')
end

-- Whether a worker saw more of this day's money than is stored: a flush, or a failover to less.
local function is_forgotten(of_day, epoch, spent, changes)
  if epoch == '' then return false end
  local stored_epoch, stored_spent, stored_changes = total_of(of_day)
  return stored_epoch ~= epoch or stored_spent < spent or stored_changes < changes
end
