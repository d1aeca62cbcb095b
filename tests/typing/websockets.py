"""The types of a WebSocket's messages, for mypy. None of this is ever run."""

from __future__ import annotations

from typing import assert_type

from pydantic import BaseModel, TypeAdapter
from returns.result import Result

from cachemesh import Cache, CacheError, SyncCache
from cachemesh.sources import NetworkFailure, WebSocketSource


class Price(BaseModel):
    name: str
    cents: int


async def messages_are_results_of_the_parsers_type() -> None:
    async with WebSocketSource("wss://h/", parser=Price).messages() as messages:
        assert_type(await anext(messages), Result[Price, NetworkFailure])
        async for result in messages:
            assert_type(result.map(lambda price: price.cents), Result[int, NetworkFailure])
        assert_type(await messages.send({"subscribe": "prices"}), Result[None, NetworkFailure])


def parsers() -> None:
    assert_type(WebSocketSource("wss://h/"), WebSocketSource[bytes])
    assert_type(WebSocketSource("wss://h/", parser=str), WebSocketSource[str])
    assert_type(WebSocketSource("wss://h/", parser=list[Price]), WebSocketSource[list[Price]])
    assert_type(WebSocketSource("wss://h/", parser=TypeAdapter(dict[str, int])), WebSocketSource[dict[str, int]])


async def a_feed(cache: Cache, other: SyncCache, source: WebSocketSource[Price]) -> None:
    async with source.feed(cache, key=lambda price: price.name, ttl=30) as feed:
        assert_type(await feed.wait(), Result[None, NetworkFailure | CacheError])
    source.feed(other, key="tea")
    source.feed(cache, key=lambda price: price.cents)  # type: ignore[arg-type,return-value]  # A key is a str.
    source.feed(cache)  # type: ignore[call-arg]  # Under which key?
