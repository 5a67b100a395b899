"""The Lua scripts. The server runs a script atomically: nobody sees half of it, and no crash leaves half of it.

`HEAD` is the part of a value that is compared: 16 digits (see `redis_rows`).
"""

from __future__ import annotations

_PUT = """
local HEAD, STEP = 16, 2000  -- unpack takes no more than 8,000 values
local function put(hash, index, pairs)  -- fields and values in turn, each written if it rises
  for from = 1, #pairs, 2 * STEP do
    local to, fields = math.min(from + 2 * STEP - 1, #pairs), {}
    for i = from, to, 2 do fields[#fields + 1] = pairs[i] end
    local old, changed, new = redis.call('HMGET', hash, unpack(fields)), {}, {}
    for i = 1, #fields do
      local value = pairs[from + 2 * i - 1]
      if not old[i] or string.sub(old[i], 1, HEAD) < string.sub(value, 1, HEAD) then
        changed[#changed + 1] = fields[i]
        changed[#changed + 1] = value
        if index and not old[i] then
          new[#new + 1] = 0
          new[#new + 1] = fields[i]
        end
      end
    end
    if #changed > 0 then redis.call('HSET', hash, unpack(changed)) end
    if #new > 0 then redis.call('ZADD', index, unpack(new)) end
  end
end
"""

COMMIT = (
    _PUT
    + """
-- KEYS: rows, their keys in order, watermarks, shards
-- ARGV: field of the shard, the offset known to be stored (or ''), the new one with counters (or ''),
--       rows, and watermarks, both as fields and values in turn, in MessagePack
local stored = redis.call('HGET', KEYS[4], ARGV[1])
if ARGV[2] ~= '' and (not stored or string.sub(stored, 1, HEAD) < ARGV[2]) then return -1 end
put(KEYS[1], KEYS[2], cmsgpack.unpack(ARGV[4]))
put(KEYS[3], nil, cmsgpack.unpack(ARGV[5]))
if ARGV[3] == '' then return 1 end
if stored and string.sub(stored, 1, HEAD) >= string.sub(ARGV[3], 1, HEAD) then return 0 end
redis.call('HSET', KEYS[4], ARGV[1], ARGV[3])
return 1
"""
)
"""Returns 1; 0 where the offset didn't rise; -1, and changes nothing, where the server has lost what was stored."""

SCAN = """
-- KEYS: rows, their keys in order; ARGV: where to begin, how many
local keys, values = redis.call('ZRANGE', KEYS[2], ARGV[1], '+', 'BYLEX', 'LIMIT', 0, ARGV[2]), {}
for from = 1, #keys, 4000 do
  local to = math.min(from + 3999, #keys)
  for _, value in ipairs(redis.call('HMGET', KEYS[1], unpack(keys, from, to))) do values[#values + 1] = value end
end
return {keys, values}
"""
"""Returns keys and values in the order of the keys' bytes."""

REGISTER = """
-- KEYS: inputs, their order, progress; ARGV: origin, what it is, how far it was sent
if redis.call('HSETNX', KEYS[1], ARGV[1], ARGV[2]) == 1 then
  redis.call('RPUSH', KEYS[2], ARGV[1])
  redis.call('HSET', KEYS[3], ARGV[1], ARGV[3])
end
return {redis.call('HGET', KEYS[1], ARGV[1]), redis.call('HGET', KEYS[3], ARGV[1])}
"""

PROGRESS = """
-- KEYS: progress; ARGV: origin, how far it was sent
local old = redis.call('HGET', KEYS[1], ARGV[1])
if not old then return 0 end
if string.sub(old, 1, 16) <= string.sub(ARGV[2], 1, 16) then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
return 1
"""

RAISE_EPOCH = """
-- KEYS: about; ARGV: the last epoch
local number = tonumber(redis.call('HGET', KEYS[1], 'epoch') or 0)
if number >= tonumber(ARGV[1]) then return -1 end
return redis.call('HINCRBY', KEYS[1], 'epoch', 1)
"""
