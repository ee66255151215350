-- Reads the counts of an hour in one piece: a worker reads one text far more cheaply than a list.
--
-- KEYS  1 control   2 history:<hour>, see history.lua
-- ARGV  1 rid
--
-- Reply, in lines: rid, then each field and its number

local counts = redis.call('HGETALL', KEYS[2])
table.insert(counts, 1, ARGV[1])
return table.concat(counts, '\n')
