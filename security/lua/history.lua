-- Adds what a worker counted in some minutes of an hour, once, and notes what is so now: the streams
-- in flight over all workers, and the day's money.
--
-- KEYS  1 control
--       2 workers                  hash  worker -> seconds (Unix), streams, most streams, last batch
--       3 history:<hour>           hash  <minute>:<measure> -> number; hours count from 1970
--       4 history:<hour>:refused   zset  refused source -> count, the most frequent only
-- ARGV  1 batch   2 worker   3 its streams   4 the most it takes   5 how long an hour is kept, ms
--       6 minute of the hour, or '' where this hour is over   7 day
--       8 how many counts follow: pairs of field and number; the rest are pairs of source and number
--
-- Reply, in lines: batch

local batch, worker = ARGV[1], ARGV[2]
local streams, most, kept = ARGV[3], ARGV[4], ARGV[5]
local minute, day, counts = ARGV[6], ARGV[7], tonumber(ARGV[8])
local now = tonumber(redis.call('TIME')[1])
local FRESH, GONE = 15, 60 -- seconds
local MOST_SOURCES = 200

local known = redis.call('HGET', KEYS[2], worker)
local is_repeated = known and string.match(known, '%S+$') == batch
redis.call('HSET', KEYS[2], worker, table.concat({ whole(now), streams, most, batch }, ' '))
redis.call('PEXPIRE', KEYS[2], whole(GONE * 1000))

local function in_flight()
  local sum = 0
  local all = redis.call('HGETALL', KEYS[2])
  for at = 1, #all, 2 do
    local seen, carried = string.match(all[at + 1], '^(%d+) (%d+)')
    if now - seen > GONE then
      redis.call('HDEL', KEYS[2], all[at])
    elseif now - seen <= FRESH then
      sum = sum + carried
    end
  end
  return sum
end

local function keep_highest(measure, value)
  local field = minute .. ':' .. measure
  if value > tonumber(redis.call('HGET', KEYS[3], field) or '-1') then
    redis.call('HSET', KEYS[3], field, whole(value))
  end
end

if not is_repeated then
  for at = 9, 8 + 2 * counts, 2 do redis.call('HINCRBY', KEYS[3], ARGV[at], ARGV[at + 1]) end
  for at = 9 + 2 * counts, #ARGV, 2 do redis.call('ZINCRBY', KEYS[4], ARGV[at + 1], ARGV[at]) end
  redis.call('ZREMRANGEBYRANK', KEYS[4], 0, -MOST_SOURCES - 1)
end
local sum = in_flight()
if minute ~= '' then
  local money = redis.call('HMGET', BASE .. 'spend:' .. day, 'spent', 'held')
  keep_highest('streams', sum)
  keep_highest('spent', tonumber(money[1] or '0'))
  keep_highest('held', tonumber(money[2] or '0'))
end
redis.call('PEXPIRE', KEYS[3], kept)
redis.call('PEXPIRE', KEYS[4], kept)
return in_lines(batch)
