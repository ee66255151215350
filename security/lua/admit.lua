-- Admits one request, or says why not. Checks 3 and 4 of the gate, in one atomic step.
--
-- Everything is decided first and written after. The address tick is kept for every outcome but
-- rate_limited; all else is written only when the request is admitted (or a chain is revoked).
-- The first write is a SET, which Redis denies when it is out of memory: a script that began with
-- a removal would run to its end there and admit everybody.
--
-- KEYS  1 control                     hash    paused = '1' (anything but '0') while admissions pause,
--                                            cap = µUSD of a day, in place of ARGV 33
--       2 blocked                     zset    visitor -> blocked until, Unix ms
--       3 rate:<a>     4 rate:<w>     string  GCRA arrival time, µs
--       5 inflight:<a> 6 inflight:<w> zset    rid -> end of its lease, Unix ms
--       7 reject:<a>   8 reject:<w>   string  GCRA arrival time, µs: own keys refused upstream
--       9 chain:<c>                   hash    n, state, rid, idem, body, fp, born, last, life; a = <a>
--      10 inflight:<c>                zset    as 5
--      11 start:<a>   12 start:<w>   13 start:all    string  as 3
--      14 spend:<day> 15 spend:<day>:<a> 16 spend:<day>:<w>  hash  money, see money.lua
--      17 hold:<rid>                  hash    the same
--       <a> is the visitor's address prefix, <w> the wider one of IPv6; an IPv4 visitor has no
--       wider prefix and names <a> twice.
--
-- ARGV  1 mode: turn | probe | own_key    2 rid    3 visitor <a>    4 visitor <w>, '' if none
--       limits, each a GCRA emission interval in µs and a burst; a wider prefix gets 16 times:
--       5, 6 rate     7, 8 start     9, 10 start of all     11, 12 refused own keys
--      13 lease, ms  14 streams per address  15 streams per chain
--      16 idle life of a chain, ms  17 absolute life, ms  18 grace, ms  19 recovery window, ms
--       the turn: 20 token's turn, 0 if none  21 token's born, ms  22 fingerprint
--      23 idempotency key, '' if none  24 body               (22 to 24 are keyed hashes)
--       its worst case: 25 prompt, µUSD  26 all, µUSD  27 output, tokens  28 pUSD per output token
--      29 day in KEYS 14 to 16, and what the worker saw of its money: 30 epoch  31 spent  32 changes
--      33 cap of a day, µUSD  34 cap of a visitor and day; a wider prefix gets 4 times; -1 if none
--      35 '1' where a chain of an earlier life of this store is not believed, see life_of_store
--
-- Reply, in lines: rid, code, chain, turn, last ms, born ms, wait ms,
--        rate remaining, rate regained in s, start remaining, start regained in s,
--        held µUSD, output tokens it pays for, visitor's budget remaining µUSD, day ends in s,
--        day, epoch, spent µUSD, changes
--       code: admitted, or a row of the failure table; chain: kept | none | revoked | advanced;
--       -1 where there is no number. chain_unknown with advanced: it goes on as chain:<rid>, of which
--       these are turn, last and born. Two codes mean that nothing was done, and are for the worker:
--       other_day, it is another day than the keys say; forgotten, the store lost money.

local mode, rid, visitor, wide = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local time = redis.call('TIME')
local now_us = time[1] * 1000000 + time[2]
local now = math.floor(now_us / 1000)
local FACTOR = 16
local BUDGET_FACTOR = 4
local LEAST_OUTPUT = 256 -- tokens; a shorter answer is no answer, unless it was asked for
local DAY = 86400
local SOON = 5 -- seconds: turns that run will have given back some of what they hold
local today = math.floor(time[1] / DAY)

-- A limit, looked at but not taken: what it would be after one more request.
local function peek(key, interval, burst)
  local arrival = math.max(tonumber(redis.call('GET', key) or '0'), now_us)
  local after = arrival + interval
  return {
    key = key, interval = interval, burst = burst, before = arrival, after = after,
    wait_us = math.max(0, after - interval * burst - now_us),
  }
end

local function tiers(narrow, wider, interval, burst)
  local limits = { peek(narrow, interval, burst) }
  if wide ~= '' then
    limits[2] = peek(wider, math.max(1, math.floor(interval / FACTOR)), burst * FACTOR)
  end
  return limits
end

local function longest_wait(limits)
  local wait = 0
  for _, limit in ipairs(limits) do wait = math.max(wait, limit.wait_us) end
  return wait
end

local function take(limits)
  for _, limit in ipairs(limits) do
    limit.before = limit.after
    redis.call('SET', limit.key, whole(limit.after), 'PX', whole(math.ceil((limit.after - now_us) / 1000) + 1000))
  end
end

-- What is left of the tightest tier: requests now, seconds until one more is regained.
local function quota(limits)
  local remaining, regained = nil, 1
  for _, limit in ipairs(limits) do
    local ahead = limit.before - now_us
    local left = math.max(0, math.floor((limit.interval * limit.burst - ahead) / limit.interval))
    if not remaining or left < remaining then
      local part = ahead % limit.interval
      if part == 0 then part = limit.interval end
      remaining, regained = left, math.max(1, math.ceil(part / 1000000))
    end
  end
  return remaining, regained
end

-- What a cap leaves of a day's money; a cap of 0 leaves less than nothing, so that nobody gets in.
-- With `at_rest` as if all that is held were given back.
local function left_of(key, cap, at_rest)
  if cap < 0 then return math.huge end
  if cap == 0 then return -1 end
  local fields = redis.call('HMGET', key, 'spent', 'held')
  local left = cap - tonumber(fields[1] or '0')
  if at_rest then return left end
  return left - tonumber(fields[2] or '0')
end

local visitor_cap = tonumber(ARGV[34])
local function left_of_visitor(at_rest)
  local left = left_of(KEYS[15], visitor_cap, at_rest)
  if wide == '' then return left end
  return math.min(left, left_of(KEYS[16], visitor_cap * BUDGET_FACTOR, at_rest))
end

local rate = tiers(KEYS[3], KEYS[4], tonumber(ARGV[5]), tonumber(ARGV[6]))
local start = nil
local function reply(code, chain, turn, last, born, wait_us, held, max_output)
  local left, regained = quota(rate)
  local starts, starts_regained = -1, -1
  if start then starts, starts_regained = quota(start) end
  local budget = -1
  if visitor_cap >= 0 and mode ~= 'own_key' then budget = math.max(0, left_of_visitor()) end
  local epoch, spent, changes = total_of(KEYS[14])
  return in_lines(
    rid, code, chain, turn or -1, last or -1, born or -1, math.ceil((wait_us or 0) / 1000),
    left, regained, starts, starts_regained, held or -1, max_output or -1, budget,
    DAY - time[1] % DAY, today, epoch, spent, changes)
end

-- The chain as stored; `n` is the integer that makes a token good once, `life` the one it was of.
local function read_chain()
  local fields = redis.call('HMGET', KEYS[9], 'n', 'state', 'rid', 'idem', 'body', 'fp', 'born', 'last', 'life')
  if not fields[1] then return nil end
  return { n = tonumber(fields[1]), state = fields[2], rid = fields[3], idem = fields[4], body = fields[5],
           fp = fields[6], born = tonumber(fields[7]), last = tonumber(fields[8]), life = fields[9] }
end

-- What this store's history is called: a server that was started again, or took over from another,
-- calls its own anew, and may have forgotten that a token was spent.
local function life_of_store()
  if ARGV[35] ~= '1' then return '' end
  local id = string.match(redis.call('INFO', 'replication'), 'master_replid:(%x+)')
  return string.sub(id or error('INFO tells no master_replid'), 1, 16)
end

local function idle_life(born)
  return whole(math.max(1, math.min(tonumber(ARGV[16]), born + tonumber(ARGV[17]) - now)))
end

-- Lets a chain of an earlier life go on under a name that no token has yet, once: the next token is
-- handed over, whatever was shown is honoured no more, and nothing is admitted by it.
local function renew(chain, life)
  redis.call('HSET', KEYS[9], 'state', 'renewed', 'rid', rid, 'last', whole(now))
  local name = BASE .. 'chain:' .. rid
  redis.call('HSET', name, 'n', '1', 'state', 'open', 'rid', '', 'idem', '', 'body', '', 'fp', chain.fp,
             'a', visitor, 'born', whole(chain.born), 'last', whole(now), 'life', life)
  redis.call('PEXPIRE', name, idle_life(chain.born))
end

local function streams_full(key, most)
  return redis.call('ZCOUNT', key, '(' .. whole(now), '+inf') >= most
end

local per_address = tonumber(ARGV[14])
local function address_is_full()
  return streams_full(KEYS[5], per_address)
    or (wide ~= '' and streams_full(KEYS[6], per_address * FACTOR))
end

local function lease(key)
  local length = tonumber(ARGV[13])
  redis.call('ZADD', key, whole(now + length), rid)
  redis.call('ZREMRANGEBYSCORE', key, '-inf', whole(now))
  redis.call('PEXPIRE', key, whole(length))
end

local function lease_address()
  lease(KEYS[5])
  if wide ~= '' then lease(KEYS[6]) end
end

local function blocked(name)
  local until_ms = name ~= '' and redis.call('ZSCORE', KEYS[2], name)
  return until_ms and tonumber(until_ms) > now
end

-- 1. The keys must be of today, and the store must not know less than the worker does.
if mode ~= 'own_key' then
  if ARGV[29] ~= whole(today) then return reply('other_day', 'kept') end
  if is_forgotten(KEYS[14], ARGV[30], tonumber(ARGV[31]), tonumber(ARGV[32])) then
    return reply('forgotten', 'kept')
  end
end

-- 2. A repeated call of ours gets its first outcome again.
local chain = mode == 'turn' and read_chain() or nil
if chain and chain.rid == rid then
  if chain.state == 'revoked' then return reply('token_reused', 'revoked') end
  if chain.state == 'renewed' then return reply('chain_unknown', 'advanced', 1, chain.last, chain.born) end
  local hold = redis.call('HMGET', KEYS[17], 'micro_usd', 'max_output')
  if not hold[1] then return reply('store_unavailable', 'unknown') end
  return reply('admitted', 'advanced', chain.n, chain.last, chain.born, 0, tonumber(hold[1]), tonumber(hold[2]))
end
if is_closed(rid) then return reply('store_unavailable', 'unknown') end
if mode == 'own_key' and redis.call('ZSCORE', KEYS[5], rid) then return reply('admitted', 'none') end

-- 3. The address rate. From here on its tick is spent.
local wait = longest_wait(rate)
if wait > 0 then return reply('rate_limited', 'kept', nil, nil, nil, wait) end
local life = mode == 'own_key' and '' or life_of_store()
take(rate)
if mode == 'probe' then return reply('admitted', 'kept') end
if blocked(visitor) or blocked(wide) then return reply('visitor_blocked', 'kept') end

-- 4. A visitor with an own key: no chain, but no checker of stolen keys either.
if mode == 'own_key' then
  wait = longest_wait(tiers(KEYS[7], KEYS[8], tonumber(ARGV[11]), tonumber(ARGV[12])))
  if wait > 0 then return reply('rate_limited', 'none', nil, nil, nil, wait) end
  if address_is_full() then return reply('too_many_streams', 'none', nil, nil, nil, 1000000) end
  lease_address()
  return reply('admitted', 'none')
end

-- 5. The start rate, for a request that would begin a new chain.
local turn, grace, recovery = tonumber(ARGV[20]), tonumber(ARGV[18]), tonumber(ARGV[19])
local fp, idem, body = ARGV[22], ARGV[23], ARGV[24]
local begins = turn == 0 and not chain
local start_of_all = nil
if begins then
  start = tiers(KEYS[11], KEYS[12], tonumber(ARGV[7]), tonumber(ARGV[8]))
  start_of_all = { peek(KEYS[13], tonumber(ARGV[9]), tonumber(ARGV[10])) }
  wait = math.max(longest_wait(start), longest_wait(start_of_all))
  if wait > 0 then return reply('start_limited', 'kept', nil, nil, nil, wait) end
end

-- 6. The chain decision; the first match wins.
if not begins then
  if not chain then return reply('chain_unknown', 'none') end
  if turn > 0 and tonumber(ARGV[21]) ~= chain.born then return reply('chain_unknown', 'none') end
  if now - chain.born > tonumber(ARGV[17]) then return reply('chain_unknown', 'none') end
  if chain.state == 'revoked' then return reply('chain_revoked', 'revoked') end
  if chain.state == 'renewed' then return reply('chain_unknown', 'none') end
  if turn >= chain.n and life ~= '' and chain.life ~= life then
    renew(chain, life)
    return reply('chain_unknown', 'advanced', 1, now, chain.born)
  end
  local same_key = idem ~= '' and idem == chain.idem
  if turn == chain.n - 1 and same_key then
    if body == chain.body and fp == chain.fp and now - chain.last <= recovery then
      return reply('duplicate_request', 'advanced', chain.n, chain.last, chain.born)
    end
    return reply('idempotency_conflict', 'kept')
  end
  if turn == 0 then return reply('idempotency_conflict', 'kept') end
  if turn == chain.n and same_key then return reply('idempotency_conflict', 'kept') end
  if turn == chain.n - 1 and now - chain.last <= grace then return reply('token_reused', 'kept') end
  if turn < chain.n then
    redis.call('HSET', KEYS[9], 'state', 'revoked', 'rid', rid)
    return reply('token_reused', 'revoked')
  end
  if turn > chain.n then return reply('chain_unknown', 'none') end
end

-- 7. Streams in flight, then the operator's pause.
if address_is_full() or streams_full(KEYS[10], tonumber(ARGV[15])) then
  return reply('too_many_streams', 'kept', nil, nil, nil, 1000000)
end
local control = redis.call('HMGET', KEYS[1], 'paused', 'cap')
if control[1] and control[1] ~= '0' then return reply('paused', 'kept', nil, nil, nil, 60000000) end

-- 8. The budget: what the turn may cost must fit beside all that is spent and held.
local prompt, worst = tonumber(ARGV[25]), tonumber(ARGV[26])
local max_output, output_price = tonumber(ARGV[27]), tonumber(ARGV[28])

-- The output that so much money pays for beside the prompt; nil where it is too little.
local function affordable(left)
  if worst <= left then return max_output end
  if output_price == 0 then return nil end
  local tokens = math.floor((left - prompt) * 1000000 / output_price)
  if tokens >= math.min(max_output, LEAST_OUTPUT) then return tokens end
end

local day_cap = tonumber(control[2] or ARGV[33])
local left_today = left_of(KEYS[14], day_cap)
local refused = nil
if not affordable(left_today) then refused = 'budget_exhausted' end
local granted = affordable(math.min(left_today, left_of_visitor()))
if not granted then refused = refused or 'budget_visitor' end
if refused then
  local wait = DAY - time[1] % DAY
  if affordable(math.min(left_of(KEYS[14], day_cap, true), left_of_visitor(true))) then wait = SOON end
  return reply(refused, 'kept', nil, nil, nil, wait * 1000000)
end
local held = worst
if granted < max_output then held = prompt + math.ceil(granted * output_price / 1000000) end

-- 9. Admitted: turn the key.
if begins then
  take(start)
  take(start_of_all)
end
local born = chain and chain.born or now
redis.call('HSET', KEYS[9], 'n', whole(turn + 1), 'state', 'open', 'rid', rid, 'idem', idem, 'body', body,
           'fp', fp, 'a', visitor, 'born', whole(born), 'last', whole(now), 'life', life)
redis.call('PEXPIRE', KEYS[9], idle_life(born))
lease(KEYS[10])
lease_address()
open_hold(rid, ARGV[29], visitor, wide, held, granted, whole(now + tonumber(ARGV[13])))
close_expired(now)
return reply('admitted', 'advanced', turn + 1, now, born, 0, held, granted)
