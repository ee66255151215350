-- Does what the operator decides; the next admission of every worker finds it so. Saying it twice
-- changes nothing.
--
-- KEYS  1 control   2 blocked   3 chain:<c>, or control where no chain is spoken of; see admit.lua
-- ARGV  1 rid
--       2 pause | resume | cap (3: µUSD, '' for the setting's) | block (3: visitor, 4: ms) |
--         unblock (3: visitor) | revoke
--
-- Reply, in lines: rid, what came of it: done | full (too many are blocked) | unknown (no such chain)

local rid, what, whom = ARGV[1], ARGV[2], ARGV[3]
local MOST_BLOCKED = 10000

local function now_ms()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function block(visitor, length)
  local now = now_ms()
  local known = redis.call('ZSCORE', KEYS[2], visitor)
  if not known and redis.call('ZCOUNT', KEYS[2], '(' .. whole(now), '+inf') >= MOST_BLOCKED then
    return 'full'
  end
  redis.call('ZADD', KEYS[2], whole(now + length), visitor)
  redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', whole(now))
  return 'done'
end

-- A chain that goes on under another name after a failover is ended there; `rid` is that name.
local function revoke(chain)
  local known = redis.call('HMGET', chain, 'n', 'state', 'rid')
  if not known[1] then return 'unknown' end
  if known[2] == 'renewed' then return revoke(BASE .. 'chain:' .. known[3]) end
  redis.call('HSET', chain, 'state', 'revoked')
  return 'done'
end

local came = 'done'
if what == 'pause' then
  redis.call('HSET', KEYS[1], 'paused', '1')
elseif what == 'resume' then
  redis.call('HDEL', KEYS[1], 'paused')
elseif what == 'cap' and whom == '' then
  redis.call('HDEL', KEYS[1], 'cap')
elseif what == 'cap' then
  redis.call('HSET', KEYS[1], 'cap', whom)
elseif what == 'block' then
  came = block(whom, tonumber(ARGV[4]))
elseif what == 'unblock' then
  redis.call('ZREM', KEYS[2], whom)
elseif what == 'revoke' then
  came = revoke(KEYS[3])
else
  error('no such decision: ' .. what)
end
return in_lines(rid, came)
