"""What the server does in one go. Arguments are arguments: no script is put together from data.

`KEYS` are always the four of the counter, or an entry and its lease: each pair
or four shares a slot.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final

from cachemesh.stores.redis.layout import COUNTER_SIZE, GENERATION_SIZE


class Script:
    """A script, and the name under which a server knows it."""

    __slots__ = ("digest", "keys", "source")

    def __init__(self, source: str, keys: int) -> None:
        self.source = source.encode()
        self.digest = sha1(self.source, usedforsecurity=False).hexdigest().encode()
        self.keys = b"%d" % keys


HEADER: Final = (b"%d" % (2 + COUNTER_SIZE), b"%d" % (1 + COUNTER_SIZE + GENERATION_SIZE))
"""Where the generation stands in a header, as Lua counts."""

_HISTORY: Final = """
local function history()
  -- Another one after a failover or a restart: writes may have been lost.
  local info = redis.pcall('INFO', 'replication')
  if type(info) ~= 'string' then return '' end
  return string.match(info, 'master_replid:(%x+)') or ''
end
"""

_COUNTER: Final = (
    # A server that is full must still take orders to remove.
    "#!lua flags=allow-oom\n"
    + _HISTORY
    + """
local head, meta, marks, soft = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local function digits(number) return string.format('%016.0f', number) end
local function counter(fresh)
  local found = redis.call('HMGET', meta, 'id', 'generation', 'last', 'count', 'history')
  local id, generation, last = found[1], tonumber(found[2]), tonumber(found[3])
  local now = history()
  if not id or not generation or not last or tonumber(found[4]) ~= redis.call('ZCARD', marks) then
    -- None yet, or the server has forgotten it or a part of it: what was before counts no more.
    redis.call('DEL', marks, soft)
    id, generation, last = fresh, 1, 0
    redis.call('HSET', meta, 'id', id, 'generation', 1, 'last', 0, 'count', 0, 'history', now)
    redis.call('SET', head, id .. digits(last))
  else
    if found[5] ~= now then
      -- The last ones may have been lost: draw none of them twice.
      generation = generation + 1048576
      redis.call('HSET', meta, 'generation', digits(generation), 'history', now)
    end
    if redis.call('EXISTS', head) == 0 then redis.call('SET', head, id .. digits(last)) end
  end
  return id, generation, last
end
"""
)

CURRENT: Final = Script(
    _COUNTER
    + """
local id, generation, last = counter(ARGV[1])
return {id, digits(generation), digits(last)}
""",
    4,
)
"""fresh id -> id, generation, last mark."""

DRAW: Final = Script(
    _COUNTER
    + """
local id, generation = counter(ARGV[1])
generation = generation + 1
redis.call('HSET', meta, 'generation', digits(generation))
return {id, digits(generation)}
""",
    4,
)
"""fresh id -> id, a new generation."""

MARK: Final = Script(
    _COUNTER
    + """
local id, generation = counter(ARGV[1])
local mark, stale_at, everything, most = ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5])
generation = generation + 1
local written = digits(generation)
if mark == everything then redis.call('DEL', marks, soft) end
redis.call('ZADD', marks, written, mark)
if stale_at ~= '' then redis.call('HSET', soft, mark, stale_at) end
local count = redis.call('ZCARD', marks)
if count > most then
  -- The oldest half counts for everything. Who knows it one by one needs not hear of it.
  local oldest = redis.call('ZPOPMIN', marks, math.floor(count / 2))
  local upto = tonumber(oldest[#oldest])
  for i = 1, #oldest, 2 do redis.call('HDEL', soft, oldest[i]) end
  redis.call('ZADD', marks, 'GT', digits(upto), everything)
  count = redis.call('ZCARD', marks)
end
redis.call('HSET', meta, 'generation', written, 'last', written, 'count', count)
redis.call('SET', head, id .. written)
redis.call('PUBLISH', ARGV[6], ARGV[7])
return {id, written}
""",
    4,
)
"""fresh id, mark, stale_at or "", the mark about everything, most marks, channel, message -> id, a new generation."""

MARKS: Final = Script(
    _COUNTER
    + """
local id, generation, last = counter(ARGV[1])
local from = '-inf'
if ARGV[2] == id then from = '(' .. ARGV[3] end
local found = redis.call('ZRANGEBYSCORE', marks, from, '+inf', 'WITHSCORES')
local answer = {id, digits(last)}
for i = 1, #found, 2 do
  answer[#answer + 1] = found[i]
  answer[#answer + 1] = digits(tonumber(found[i + 1]))
  answer[#answer + 1] = redis.call('HGET', soft, found[i]) or ''
end
return answer
""",
    4,
)
"""fresh id, known id, known generation -> id, last mark, and (mark, generation, stale_at or "") for each new one."""

CLAIM: Final = Script(
    _HISTORY
    + """
local entry, lease = KEYS[1], KEYS[2]
local token, lease_ms, seen, placeholder, placeholder_ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local header = redis.call('GETRANGE', entry, 0, #placeholder - 1)
if seen ~= '?' and header ~= seen and string.sub(header, 1, 1) == 'E' then
  return {'found', redis.call('GET', entry)}
end
if token ~= '' and not redis.call('SET', lease, token, 'NX', 'PX', lease_ms) then
  if redis.call('GET', lease) ~= token then return {'taken', header} end
end
if header == '' then
  header = placeholder
  redis.call('SET', entry, placeholder, 'PX', placeholder_ms)
end
return {'granted', header, history()}
""",
    2,
)
"""token or "", lease, header seen or "?", placeholder, its time -> one of
"found", record; "taken", header; "granted", header, history.

What is not there is no proof that nothing was removed: a placeholder is put
down, whose absence later says that something was.
"""

COMMIT: Final = Script(
    _HISTORY
    + """
local entry, lease = KEYS[1], KEYS[2]
local token, seen, known, record, size, ms = ARGV[1], ARGV[2], ARGV[3], ARGV[4], tonumber(ARGV[5]), ARGV[6]
local header = redis.call('GETRANGE', entry, 0, size - 1)
if header == string.sub(record, 1, size) then return 1 end
local held = token ~= '' and redis.call('GET', lease) == token
local fits = header ~= '' and (held or header == seen) and history() == known
-- Before the lease goes: a full server lets a script finish that has written already.
local kept = fits and redis.pcall('SET', entry, record, 'PX', ms)
if held then redis.call('DEL', lease) end
if not kept then return 0 end
if kept.err then return kept end
redis.call('PUBLISH', ARGV[7], ARGV[8])
return 1
""",
    2,
)
"""token or "", header seen, history, record, size of a header, its time, channel, message -> 1 or 0."""

RELEASE: Final = Script(
    """
local entry, lease = KEYS[1], KEYS[2]
if ARGV[1] ~= '' and redis.call('GET', lease) == ARGV[1] then redis.call('DEL', lease) end
if string.sub(ARGV[2], 1, 1) == 'P' and redis.call('GETRANGE', entry, 0, #ARGV[2] - 1) == ARGV[2] then
  redis.call('DEL', entry)
end
return 1
""",
    2,
)
"""token or "", header seen -> 1. A placeholder of one's own goes with the lease."""

PUT: Final = Script(
    """
local entry, lease = KEYS[1], KEYS[2]
local record, size, ms, from, to = ARGV[1], tonumber(ARGV[2]), ARGV[3], tonumber(ARGV[4]), tonumber(ARGV[5])
local header = redis.call('GETRANGE', entry, 0, size - 1)
if string.sub(header, 1, from - 1) == string.sub(record, 1, from - 1)
  and tonumber(string.sub(header, from, to)) > tonumber(string.sub(record, from, to)) then return 0 end
redis.call('SET', entry, record, 'PX', ms)
redis.call('DEL', lease)
redis.call('PUBLISH', ARGV[6], ARGV[7])
return 1
""",
    2,
)
"""record, size of a header, its time, where its generation stands, channel, message -> 1; 0: a newer one is there."""

DELETE: Final = Script(
    """
redis.call('DEL', KEYS[1], KEYS[2])
redis.call('PUBLISH', ARGV[1], ARGV[2])
return 1
""",
    2,
)
"""channel, message -> 1. Who is fetching finds lease and placeholder gone, and stores nothing."""

SWEEP: Final = Script(
    """
local from, to = tonumber(ARGV[1]), tonumber(ARGV[2])
local header = redis.call('GETRANGE', KEYS[1], 0, to - 1)
if string.sub(header, 1, from - 1) == 'E' .. ARGV[3] and tonumber(string.sub(header, from, to)) < tonumber(ARGV[4]) then
  if redis.call('EXISTS', KEYS[2]) == 0 then return redis.call('UNLINK', KEYS[1]) end
  redis.call('SET', KEYS[1], 'P' .. redis.call('GETRANGE', KEYS[1], 1, ARGV[6] - 1), 'PX', ARGV[5])
  return 1
end
return 0
""",
    2,
)
"""where a generation stands, id, generation, time of a placeholder, size of a header -> 1; 0: it is not older.

Who is fetching it by now knows of the mark, and finds a placeholder: nothing more has been removed.
"""
