-- Gives a store back what it lost of a day's money, by what one worker remembers of it.
--
-- KEYS  1 control  2 spend:<day>
-- ARGV  1 rid of this call  2 day  what the worker saw: 3 epoch  4 spent  5 changes
--       then its open holds, six each: rid, <a>, <w> or '', µUSD, output tokens, lease in ms
-- Reply, in lines: rid, 'restored', epoch, spent µUSD, changes
--
-- Nothing is ever lowered. The first worker to come begins a new epoch, by which all others know
-- that they have something to give back too. What was spent before the loss, as the worker that knows
-- most of it says, stands in `before`; what was spent since comes on top. A hold that is there is left
-- as it is, and one that was closed while its worker had not heard of it stays closed.

local of_day = KEYS[2]
local epoch, spent, changes = total_of(of_day)
local before, known = tonumber(redis.call('HGET', of_day, 'before') or '0'), tonumber(ARGV[4])
if epoch == '' or epoch == ARGV[3] then
  epoch, spent = ARGV[1], math.max(spent, known)
  before = spent
elseif known > before then
  spent, before = spent + known - before, known
end
redis.call('HSET', of_day, 'epoch', epoch, 'spent', whole(spent), 'before', whole(before),
           'changes', whole(math.max(changes, tonumber(ARGV[5])) + 1))
redis.call('PEXPIRE', of_day, KEPT)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
for at = 6, #ARGV, 6 do
  local rid, visitor, wide, amount, max_output, lease = unpack(ARGV, at, at + 5)
  if not is_closed(rid) and redis.call('EXISTS', BASE .. 'hold:' .. rid) == 0 then
    open_hold(rid, ARGV[2], visitor, wide, tonumber(amount), tonumber(max_output), whole(now + tonumber(lease)))
  end
end
return in_lines(ARGV[1], 'restored', total_of(of_day))
