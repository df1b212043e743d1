"""Lua scripts for what must happen at once or not at all; the server runs them.

A script is one step for everybody else, and its writes reach the append-only file together. Every
script that settles first checks that the entry is still this consumer's: another may have taken it
over from one that stood still.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from redis import Redis
from redis.client import Pipeline
from redis.commands.core import Script

__all__ = ["PREFIX", "Scripts", "add_to", "load"]

#: Consumers of ours are called so, which tells them from others in an adopted stream's group.
PREFIX = "gearshift:"

#: Owns what was given back. It shows no sign of life, so anybody takes it.
_RELEASED = f"{PREFIX}released"

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

_IS_MINE = """
local function is_mine(id)
  return #redis.call('XPENDING', KEYS[1], ARGV[1], id, id, 1, ARGV[2]) > 0
end
local function settle(...)
  redis.call('XACK', KEYS[1], ARGV[1], ...)
  if ARGV[3] == '1' then redis.call('XDEL', KEYS[1], ...) end
end
"""

_HOLDS = """
local function holds(stream, group, consumer)
  return #redis.call('XPENDING', stream, group, '-', '+', 1, consumer) > 0
end
"""

# The consumers of a group whose sign of life is gone, and how many others there are.
_DEAD = f"""
local function consumers(stream, group, alive)
  local dead, others = {{}}, 0
  for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local one = {{}}
    for i = 1, #flat, 2 do one[flat[i]] = flat[i + 1] end
    if string.sub(one.name, 1, {len(PREFIX)}) ~= '{PREFIX}' then
      others = others + 1
    elseif redis.call('EXISTS', alive .. one.name) == 0 then
      dead[#dead + 1] = one
    else
      others = others + 1
    end
  end
  return dead, others
end
"""

# KEYS: groups. ARGV: what streams begin with, then the fields. Returns how many groups have it.
_PUBLISH = """
local groups = redis.call('HGETALL', KEYS[1])
local stored = 0
for i = 1, #groups, 2 do
  local stream = ARGV[1] .. groups[i]
  if groups[i + 1] == 'ephemeral' and redis.call('EXISTS', stream) == 0 then
    redis.call('HDEL', KEYS[1], groups[i])
  else
    redis.call('XADD', stream, '*', unpack(ARGV, 2))
    stored = stored + 1
  end
end
return stored
"""

# KEYS: sign of life, later, own stream. ARGV: lease in ms, lifetime in ms of an ephemeral group or
# 0. Returns how many retries are due now. A server whose memory is full lets no key be set and no
# entry be added: the sign of life is kept up all the same, and the retries wait.
_SERVE = (
    _NOW
    + """
if redis.call('PEXPIRE', KEYS[1], ARGV[1]) == 0 then
  redis.call('SET', KEYS[1], '', 'PX', ARGV[1])
end
if ARGV[2] ~= '0' then
  redis.call('PEXPIRE', KEYS[2], ARGV[2])
  redis.call('PEXPIRE', KEYS[3], ARGV[2])
end
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now, 'LIMIT', 0, 100)
for _, packed in ipairs(due) do
  local added = redis.pcall('XADD', KEYS[3], '*', unpack(cmsgpack.unpack(packed), 2))
  if type(added) == 'table' and added.err then break end
  redis.call('ZREM', KEYS[2], packed)
end
return #due
"""
)

# KEYS: stream. ARGV: group. Returns how many entries at the head of the stream somebody has trimmed
# before the group read them. The group's own count of what it has read tells: it is moved behind
# those, and set where it is not known yet, so that they are counted once.
_TRIMMED = """
local function table_of(flat)
  local one = {}
  for i = 1, #flat, 2 do one[flat[i]] = flat[i + 1] end
  return one
end
local function number(id)
  local ms, count = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(count)
end
local stream = table_of(redis.call('XINFO', 'STREAM', KEYS[1]))
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = table_of(flat)
  if group.name == ARGV[1] then
    local last = group['last-delivered-id']
    if stream['first-entry'] then
      local last_ms, last_count = number(last)
      local ms, count = number(stream['first-entry'][1])
      if ms < last_ms or (ms == last_ms and count <= last_count) then return 0 end
    elseif last == stream['last-generated-id'] then
      return 0
    end
    local gone = stream['entries-added'] - stream['length']
    local read = group['entries-read']
    if read == gone then return 0 end
    redis.call('XGROUP', 'SETID', KEYS[1], ARGV[1], last, 'ENTRIESREAD', gone)
    return read and math.max(gone - read, 0) or 0
  end
end
return 0
"""

# KEYS: stream. ARGV: group, consumer, what signs of life begin with, how many at most, 1 to take
# what was lost alone. Returns {id, fields, losses} of what others left, oldest first; 1 if more has
# to wait for that; and how many of them were deleted meanwhile. The server's count of an entry's
# deliveries is its losses and one.
_TAKE_OVER = (
    _DEAD
    + _HOLDS
    + f"""
local found = {{}}
for _, one in ipairs(consumers(KEYS[1], ARGV[1], ARGV[3])) do
  if one.pending == 0 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], one.name)
  else
    local died = one.name == '{_RELEASED}' and 0 or 1
    for _, entry in ipairs(
      redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[4], one.name)
    ) do
      local ms, number = string.match(entry[1], '(%d+)-(%d+)')
      found[#found + 1] = {{entry[1], entry[4] - 1 + died, tonumber(ms), tonumber(number)}}
    end
  end
end
table.sort(found, function(a, b) return a[3] < b[3] or (a[3] == b[3] and a[4] < b[4]) end)
local taken, gone = {{}}, 0
for i = 1, math.min(#found, tonumber(ARGV[4])) do
  local lost = found[i][2]
  local alone = lost > 0 and ARGV[5] == '1'
  if alone and (i > 1 or holds(KEYS[1], ARGV[1], ARGV[2])) then return {{taken, 1, gone}} end
  local entry = redis.call(
    'XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, found[i][1], 'RETRYCOUNT', lost + 1
  )[1]
  if entry then taken[#taken + 1] = {{entry[1], entry[2], lost}} else gone = gone + 1 end
  if alone then return {{taken, 1, gone}} end
end
return {{taken, 0, gone}}
"""
)

# KEYS: stream. ARGV: group, consumer, 1 to delete, ids. Returns those that are not its own. Mostly
# one question tells whose they are, as they follow one another; so many fit into a call of Lua's.
_ACK = (
    _IS_MINE
    + """
local gone = {}
for first = 4, #ARGV, 1000 do
  local last = math.min(first + 999, #ARGV)
  local held, mine = {}, {}
  for _, entry in ipairs(redis.call(
    'XPENDING', KEYS[1], ARGV[1], ARGV[first], ARGV[last], last - first + 1, ARGV[2]
  )) do held[entry[1]] = true end
  for i = first, last do
    local list = (held[ARGV[i]] or is_mine(ARGV[i])) and mine or gone
    list[#list + 1] = ARGV[i]
  end
  if #mine > 0 then settle(unpack(mine)) end
end
return gone
"""
)

# KEYS: stream, own stream, later. ARGV: group, consumer, 1 to delete, id, delay in ms, fields.
_RETRY = (
    _NOW
    + _IS_MINE
    + """
if not is_mine(ARGV[4]) then return {ARGV[4]} end
if tonumber(ARGV[5]) > 0 then
  redis.call('ZADD', KEYS[3], now + ARGV[5], cmsgpack.pack({ARGV[4], unpack(ARGV, 6)}))
else
  redis.call('XADD', KEYS[2], '*', unpack(ARGV, 6))
end
settle(ARGV[4])
return {}
"""
)

# KEYS: stream. ARGV: group, consumer, -, id. JUSTID: it does not count as a delivery.
_RELEASE = (
    _IS_MINE
    + f"""
if not is_mine(ARGV[4]) then return {{ARGV[4]}} end
redis.call('XCLAIM', KEYS[1], ARGV[1], '{_RELEASED}', 0, ARGV[4], 'JUSTID')
return {{}}
"""
)

# KEYS: stream. ARGV: group, what one consumer's names begin with, what signs of life begin with.
# Gives back all that it holds, which is no loss, and lets go.
_LEAVE = f"""
for _, flat in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  if string.sub(flat[2], 1, #ARGV[2]) == ARGV[2] then
    for _, entry in ipairs(
      redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 100000, flat[2])
    ) do
      redis.call('XCLAIM', KEYS[1], ARGV[1], '{_RELEASED}', 0, entry[1], 'JUSTID')
    end
    redis.call('DEL', ARGV[3] .. flat[2])
  end
end
"""

# KEYS: own stream. ARGV: group, what signs of life begin with. Returns entries, those in hand,
# id of the first, consumers.
_STATE = (
    _DEAD
    + """
local pending = redis.call('XPENDING', KEYS[1], ARGV[1])[1]
local dead, others = consumers(KEYS[1], ARGV[1], ARGV[2])
for _, one in ipairs(dead) do pending = pending - one.pending end
local first = redis.call('XRANGE', KEYS[1], '-', '+', 'COUNT', 1)[1]
return {redis.call('XLEN', KEYS[1]), pending, first and first[1] or '', others}
"""
)

# KEYS: own stream, later. ARGV: group, what signs of life begin with, how many at most of each.
_PURGE = (
    _DEAD
    + """
local count = redis.call('ZCARD', KEYS[2])
redis.call('DEL', KEYS[2])
for _, one in ipairs(consumers(KEYS[1], ARGV[1], ARGV[2])) do
  for _, entry in ipairs(redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', ARGV[3], one.name)) do
    redis.call('XACK', KEYS[1], ARGV[1], entry[1])
    count = count + redis.call('XDEL', KEYS[1], entry[1])
  end
end
local last = '0-0'
for _, flat in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local one = {}
  for i = 1, #flat, 2 do one[flat[i]] = flat[i + 1] end
  if one.name == ARGV[1] then last = one['last-delivered-id'] end
end
for _, entry in ipairs(redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', ARGV[3])) do
  count = count + redis.call('XDEL', KEYS[1], entry[1])
end
return count
"""
)


def load(client: Redis, *scripts: Script) -> None:
    """Have the server know ``scripts``, so that they may be added to pipelines."""
    pipeline = client.pipeline(transaction=False)
    for script in scripts:
        pipeline.script_load(script.script)
    pipeline.execute()


def add_to(
    pipeline: Pipeline, script: Script, keys: Sequence[str], arguments: Sequence[Any]
) -> None:
    """Have ``pipeline`` run a script that was loaded: redis-py itself would first ask the server
    whether it has it, each time."""
    pipeline.evalsha(script.sha, len(keys), *keys, *arguments)


class Scripts:
    """The scripts, registered with one client. Called alone, one is loaded when first run."""

    def __init__(self, client: Redis) -> None:
        self.serve: Script = client.register_script(_SERVE)
        self.trimmed: Script = client.register_script(_TRIMMED)
        self.take_over: Script = client.register_script(_TAKE_OVER)
        self.ack: Script = client.register_script(_ACK)
        self.retry: Script = client.register_script(_RETRY)
        self.release: Script = client.register_script(_RELEASE)
        self.leave: Script = client.register_script(_LEAVE)
        self.state: Script = client.register_script(_STATE)
        self.purge: Script = client.register_script(_PURGE)
        self.publish: Script = client.register_script(_PUBLISH)
