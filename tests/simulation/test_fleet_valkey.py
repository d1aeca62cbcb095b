"""The modelled Valkey answers as a real one does: the same commands, drawn by a seed, to both."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pytest

from cachemesh.simulation.fleet.valkey import Valkey
from cachemesh.stores.redis import scripts
from cachemesh.stores.redis.layout import HEADER_SIZE, Header, Layout, mark_name
from cachemesh.stores.redis.store import EVERYTHING
from tests.stores.servers import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

LAYOUT = Layout("compared")
ENTRIES = [LAYOUT.entry(("global", None), key) for key in ("a", "b")]  # type: ignore[arg-type]  # (names of scopes)
TOKENS = [b"", b"t" * 16, b"u" * 16]
MOST_MARKS = b"4"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as server:
        yield server


def header(rng: random.Random) -> bytes:
    kind = rng.choice((b"E", b"P"))
    return Header(
        kind, rng.choice((b"c" * 12, b"d" * 12)), rng.randrange(4), rng.choice((b"1" * 12, b"2" * 12))
    ).packed()


def command(rng: random.Random, history: bytes) -> tuple[scripts.Script | None, tuple[bytes, ...], tuple[bytes, ...]]:
    """A script, its keys and its arguments; None is MGET."""
    entry, counter = rng.choice(ENTRIES), LAYOUT.counter
    keys, news, record = (entry, LAYOUT.lease(entry)), (LAYOUT.channel, b"news"), header(rng) + b"value"
    seen = rng.choice((b"?", b"", header(rng)))
    mark = rng.choice((EVERYTHING, *(mark_name((None, f"t{n}"), is_soft=n % 2 == 0) for n in range(6))))
    match rng.randrange(10):
        case 0:
            return scripts.CURRENT, counter, (b"f" * 12,)
        case 1:
            return scripts.DRAW, counter, (b"f" * 12,)
        case 2 | 3:
            stale_at = rng.choice((b"", b"12.5"))
            return scripts.MARK, counter, (b"f" * 12, mark, stale_at, EVERYTHING, MOST_MARKS, *news)
        case 4:
            return scripts.MARKS, counter, (b"f" * 12, rng.choice((b"f" * 12, b"g" * 12)), b"%016d" % rng.randrange(9))
        case 5:
            placeholder = b"P" + header(rng)[1:]
            return scripts.CLAIM, keys, (rng.choice(TOKENS), b"60000", seen, placeholder, b"60000")
        case 6:
            known = rng.choice((history, b"other"))
            size = b"%d" % HEADER_SIZE
            return scripts.COMMIT, keys, (rng.choice(TOKENS), seen, known, record, size, b"60000", *news)
        case 7:
            return scripts.RELEASE, keys, (rng.choice(TOKENS), header(rng))
        case 8:
            return scripts.PUT, keys, (record, b"%d" % HEADER_SIZE, b"60000", *scripts.HEADER, *news)
        case _:
            if rng.random() < 0.7:
                return None, (LAYOUT.head, *ENTRIES, *map(LAYOUT.lease, ENTRIES)), ()
            return scripts.DELETE, keys, news


@pytest.mark.parametrize("seed", range(6))
def test_fleet_the_modelled_server_answers_as_a_real_one(server: Server, seed: int) -> None:
    rng = random.Random(seed)
    published: list[bytes] = []
    model = Valkey(lambda: 0.0, lambda _, message: published.append(message))
    server.empty()
    with server.client() as client:
        real: Any = client
        history = real.info("replication")["master_replid"].encode()

        def alike(answer: object) -> object:
            """The name of a history is each server's own."""
            if isinstance(answer, list):
                return [b"history" if each in {history, model.history} else each for each in answer]
            return answer

        for _ in range(400):
            script, keys, args = command(rng, b"history")
            if script is None:
                assert model.execute((b"MGET", *keys)) == real.mget(keys)
                continue
            ours = [model.history if each == b"history" else each for each in args]
            theirs = [history if each == b"history" else each for each in args]
            expected = real.eval(script.source, len(keys), *keys, *theirs)
            answer = model.execute((b"EVALSHA", script.digest, script.keys, *keys, *ours))
            assert alike(answer) == alike(expected), script.source[:80]
    assert published
