"""Scenarios of several caches that hear of each other: what is lost, late, doubled, forged, or flushed away."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cachemesh.shell import health
from tests.stores.simulated import KEYS, Sea, until_all_agree

if TYPE_CHECKING:
    from tests.stores.simulated import Node

SLOW: Final = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
NODES: Final = 3

node_numbers: Final = st.integers(0, NODES - 1)
keys: Final = st.sampled_from(KEYS)
some: Final = st.integers(0, 5)
asks: Final = st.tuples(st.just("ask"), node_numbers, keys)
replies: Final = st.tuples(st.just("reply"), some, some)
changes: Final = st.tuples(
    st.sampled_from(["invalidate", "invalidate", "put", "tag", "clear"]), node_numbers, keys
)
deliveries: Final = st.tuples(st.just("deliver"), node_numbers, some)
losses: Final = st.tuples(st.sampled_from(["lose", "double", "notice"]), node_numbers, some)


async def play(steps: list[tuple[Any, ...]]) -> None:
    """Play `steps`; at the end everything has arrived or is known to be lost, and all nodes agree."""
    sea = Sea(NODES)
    try:
        for what, number, detail in steps:
            if what == "reply":
                sea.let_through(number)
            else:
                await act(sea.nodes[number], what, detail)
            await sea.turns()
        sea.let_all_through()
        await sea.turns()
        for node in sea.nodes:
            while node.inbox:
                node.deliver(0)
            if node.owes_lost:
                node.notice()
        for node in sea.nodes:
            await asyncio.gather(*node.asked)
            assert node.wrong == []
            for key in sea.keys:
                held = node.cache.peek(key).value_or(sea.origin[key])
                assert held == sea.origin[key]
        assert await until_all_agree(sea, 0.0 + 5.0) < 1.0
    finally:
        await sea.aclose()


async def act(node: Node, what: str, detail: Any) -> None:
    if what == "ask":
        node.ask(detail)
    elif what == "deliver":
        node.deliver(detail)
    elif what == "double":
        node.deliver(detail, keeps=True)
    elif what == "lose":
        node.lose(detail)
    elif what == "notice":
        node.notice()
    else:
        await node.change(detail, what)


@given(st.lists(st.one_of(asks, replies, changes, deliveries), max_size=40))
@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
def test_rd1_what_was_read_before_an_invalidation_never_comes_into_memory_after_it(steps: list[Any]) -> None:
    """Replies of the store and of the origin arrive in any order, and the news between, before and after them."""
    asyncio.run(play(steps))


@given(st.lists(st.one_of(asks, replies, changes, deliveries, losses), max_size=40))
@settings(max_examples=150, deadline=None, suppress_health_check=SLOW)
def test_rd4_lost_doubled_and_disordered_news_bring_no_older_version_back(steps: list[Any]) -> None:
    asyncio.run(play(steps))
