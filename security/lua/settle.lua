-- Ends a turn: gives back its place among the streams in flight. Once or many times, it is the same.
--
-- KEYS  1 inflight:<a>  2 inflight:<w>  3 inflight:<c>   zset, as in admit.lua; <c> is <a> without a chain
--       4 reject:<a>    5 reject:<w>                     string, GCRA arrival time, µs; <w> is <a> for IPv4
-- ARGV  1 rid  2 '1' when upstream refused the visitor's own key  3 emission interval, µs
-- Reply {rid}
--
-- Only the call that finds the turn open counts a refused key: a repeat of it counts nothing.

local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local FACTOR = 16

local function tick(key, interval)
  local after = math.max(tonumber(redis.call('GET', key) or '0'), now_us) + interval
  redis.call('SET', key, string.format('%.0f', after), 'PX',
             string.format('%.0f', math.ceil((after - now_us) / 1000) + 1000))
end

local open = redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if open == 1 and ARGV[2] == '1' then
  local interval = tonumber(ARGV[3])
  tick(KEYS[4], interval)
  if KEYS[5] ~= KEYS[4] then tick(KEYS[5], math.max(1, math.floor(interval / FACTOR))) end
end
return { ARGV[1] }
