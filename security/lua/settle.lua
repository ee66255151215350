-- Ends a turn: gives back its places in flight and moves its hold to what was spent, once.
--
-- KEYS  1 control
--       2 inflight:<a>  3 inflight:<w>  4 inflight:<c>   zset, as in admit.lua; <c> is <a> without a chain
--       5 reject:<a>    6 reject:<w>                     string, GCRA arrival time, µs; <w> is <a> for IPv4
--       7 spend:<day>                                    hash, see money.lua; the hold's day, else today
-- ARGV  1 rid  2 '1' when upstream refused the visitor's own key  3 emission interval, µs
--       4 charge, µUSD  5 '1' when the answer was longer than it might be
--       what the worker saw of that day's money: 6 epoch  7 spent  8 changes
--       what the hold was taken from, if the worker has it open: 9 day  10 visitor <a>, '' if it has
--       not  11 visitor <w>, '' if none
-- Reply, in lines: rid, code, epoch, spent µUSD, changes
--       code: settled, or forgotten, when the store lost money and nothing was done.
--
-- Only the first call for a turn counts: a repeat of it changes nothing. A turn that is not found was
-- lost with its hold, and is charged all the same, or is still on its way in: its name is kept, so that
-- it is not admitted then.

local rid = ARGV[1]
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local FACTOR = 16

local function tick(key, interval)
  local after = math.max(tonumber(redis.call('GET', key) or '0'), now_us) + interval
  redis.call('SET', key, whole(after), 'PX', whole(math.ceil((after - now_us) / 1000) + 1000))
end

local function reply(code)
  return in_lines(rid, code, total_of(KEYS[7]))
end

if is_forgotten(KEYS[7], ARGV[6], tonumber(ARGV[7]), tonumber(ARGV[8])) then return reply('forgotten') end

local open = redis.call('ZREM', KEYS[2], rid)
redis.call('ZREM', KEYS[3], rid)
redis.call('ZREM', KEYS[4], rid)
if open == 1 and ARGV[2] == '1' then
  local interval = tonumber(ARGV[3])
  tick(KEYS[5], interval)
  if KEYS[6] ~= KEYS[5] then tick(KEYS[6], math.max(1, math.floor(interval / FACTOR))) end
end
local charge = tonumber(ARGV[4])
if close_hold(rid, charge) then
  if ARGV[5] == '1' then redis.call('HINCRBY', KEYS[7], 'past', '1') end
elseif open == 0 and not is_closed(rid) then
  if ARGV[10] ~= '' and charge > 0 then charge_unheld(ARGV[9], ARGV[10], ARGV[11], charge) end
  mark_closed(rid, A_MINUTE)
end
return reply('settled')
