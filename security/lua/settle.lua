-- Ends a turn: gives back its place among the streams in flight. Once or many times, it is the same.
--
-- KEYS  1 inflight:<a>  2 inflight:<w>  3 inflight:<c>   zset, as in admit.lua; <c> is <a> without a chain
--       4 reject:<a>                                     string, GCRA arrival time, µs
-- ARGV  1 rid  2 '1' when upstream refused the visitor's own key  3 emission interval, µs
-- Reply {rid}
--
-- Only the call that finds the turn open counts a refused key: a repeat of it counts nothing.

local open = redis.call('ZREM', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if open == 1 and ARGV[2] == '1' then
  local time = redis.call('TIME')
  local now_us = time[1] * 1000000 + time[2]
  local after = math.max(tonumber(redis.call('GET', KEYS[4]) or '0'), now_us) + tonumber(ARGV[3])
  redis.call('SET', KEYS[4], string.format('%.0f', after), 'PX',
             string.format('%.0f', math.ceil((after - now_us) / 1000) + 1000))
end
return { ARGV[1] }
