-- Counts attempts to come in as the operator, before each is looked at: a crowd of guesses at once
-- gets no more looks than one after another. The right word gives its attempt back.
--
-- KEYS  1 control   2 admin:tries:<a>   3 admin:tries:all    string  GCRA arrival time, µs
--       4 admin:known:<a>    string  '1' where the right word came from lately: a flood of others'
--                                    guesses does not keep the operator out there
-- ARGV  1 rid   2 try | right   3 interval of an address, µs   4 its burst   5, 6 the same of all
--       7 how long an address is known, ms
--
-- Reply, in lines: rid, ms to wait (0 where the attempt may be looked at)

local rid, what = ARGV[1], ARGV[2]
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local is_known = redis.call('EXISTS', KEYS[4]) == 1

local limits = { { key = KEYS[2], interval = tonumber(ARGV[3]), burst = tonumber(ARGV[4]) } }
if not is_known then
  limits[2] = { key = KEYS[3], interval = tonumber(ARGV[5]), burst = tonumber(ARGV[6]) }
end

local wait = 0
for _, limit in ipairs(limits) do
  limit.arrival = math.max(tonumber(redis.call('GET', limit.key) or '0'), now_us)
  wait = math.max(wait, limit.arrival + limit.interval - limit.interval * limit.burst - now_us)
end

local function write(sign)
  for _, limit in ipairs(limits) do
    local after = limit.arrival + sign * limit.interval
    redis.call('SET', limit.key, whole(after), 'PX', whole(math.max(0, math.ceil((after - now_us) / 1000)) + 1000))
  end
end

if what == 'right' then
  write(-1)
  redis.call('SET', KEYS[4], '1', 'PX', ARGV[7])
  return in_lines(rid, 0)
end
if wait > 0 then return in_lines(rid, math.ceil(wait / 1000)) end
write(1)
return in_lines(rid, 0)
