"""The price of `with_valid_token` on a valid token, over the bare call of the action: one task, or one thread.

The action answers at once. The loops are spelled out, one a contender.
"""

import asyncio
import time
from itertools import repeat
from typing import Final

from returns.result import Result, Success

from benchmarks.harness import Contender, async_sample, race, sync_sample
from benchmarks.table import Table
from cachemesh.auth import SyncTokenKeeper, Token, TokenKeeper

ROUNDS: Final = 31
MOST_NS: Final = 3_000.0

TOKEN: Final = Token(access_token="a-token", refresh_token="r-token", expires_at=time.time() + 86_400)  # noqa: S106 (made up)
ANSWER: Final[Result[int, int]] = Success(1)


def tables() -> list[Table]:
    return [async_table(), sync_table()]


def async_table() -> Table:
    async def action(text: str) -> Result[int, int]:
        del text
        return ANSWER

    async def refresh(token: Token) -> Result[Token, str]:
        return Success(token)

    async def bare(n: int) -> None:
        for _ in repeat(None, n):
            await action("a-token")

    keeper = TokenKeeper(refresh, proactive_window=300)

    async def kept(n: int) -> None:
        for _ in repeat(None, n):
            await keeper.with_valid_token(action)

    with asyncio.Runner() as runner:
        runner.run(keeper.set_tokens(TOKEN))
        contenders = [Contender("await action(token)", async_sample(runner, bare))]
        contenders.append(Contender("TokenKeeper.with_valid_token(action)", async_sample(runner, kept)))
        race(contenders, rounds=ROUNDS)
    return _table("with_valid_token, async", *contenders)


def sync_table() -> Table:
    def action(text: str) -> Result[int, int]:
        del text
        return ANSWER

    def bare(n: int) -> None:
        for _ in repeat(None, n):
            action("a-token")

    keeper = SyncTokenKeeper(Success, proactive_window=300)
    keeper.set_tokens(TOKEN)

    def kept(n: int) -> None:
        for _ in repeat(None, n):
            keeper.with_valid_token(action)

    contenders = [
        Contender("action(token)", sync_sample(bare)),
        Contender("SyncTokenKeeper.with_valid_token(action)", sync_sample(kept)),
    ]
    race(contenders, rounds=ROUNDS)
    return _table("with_valid_token, threaded", *contenders)


def _table(title: str, bare: Contender, kept: Contender) -> Table:
    table = Table(title, ("what", "ns", "best ns", "ns over it"))
    table.add(bare.name, bare.median, bare.best, 0.0)
    over = kept.median - bare.median
    table.add(kept.name, kept.median, kept.best, over, target=f"<= {MOST_NS:.0f} ns over", reached=over <= MOST_NS)
    return table
