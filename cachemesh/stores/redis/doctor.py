"""What is well with a server, and what is not."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

from cachemesh.stores.redis.errors import ServerRefusedError
from cachemesh.stores.report import Finding, Level

if TYPE_CHECKING:
    from cachemesh.stores.redis.batch import Batcher
    from cachemesh.stores.redis.source import Address

OLDEST_VERSION: Final = (7, 0)
OLDEST: Final = "7.0"
"""Scripts that a full server runs."""


async def info_of(batcher: Batcher, address: Address) -> dict[str, str]:
    """What the server at `address` says of itself (INFO)."""
    reply = await batcher.ask_at(address, b"INFO")
    if not isinstance(reply, bytes):
        msg = "an answer of another kind"
        raise ServerRefusedError(msg)
    lines = reply.decode("utf-8", "replace").splitlines()
    return dict(line.split(":", 1) for line in lines if ":" in line)


def server_of(info: dict[str, str]) -> tuple[str, str]:
    """Which server it is, and its version."""
    if "valkey_version" in info:
        return "Valkey", info["valkey_version"]
    return "Redis", info.get("redis_version", "?")


async def examined(batcher: Batcher, timeout_s: float) -> list[Finding]:
    """What is to be said of each server."""
    findings: list[Finding] = []
    try:
        addresses = await batcher.primaries()
    except (OSError, RuntimeError) as error:
        return [Finding(Level.ERROR, "connection", f"There is no server to be had: {type(error).__name__}.")]
    for number, address in enumerate(addresses, 1):
        name = "server" if len(addresses) == 1 else f"server {number} of {len(addresses)}"
        started = time.perf_counter()
        try:
            await batcher.ask_at(address, b"PING")
            seconds = time.perf_counter() - started
            info = await info_of(batcher, address)
        except (OSError, RuntimeError) as error:
            findings.append(Finding(Level.ERROR, name, f"It is of no use: {type(error).__name__} ({error})."))
            continue
        findings += [about_version(name, info), about_latency(name, seconds, timeout_s)]
        findings += [about_eviction(name, info), about_persistence(name, info), about_replicas(name, info)]
    return findings


def about_version(name: str, info: dict[str, str]) -> Finding:
    kind, version = server_of(info)
    mode = info.get("server_mode") or info.get("redis_mode", "?")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < OLDEST_VERSION:
        return Finding(
            Level.ERROR,
            name,
            f"{kind} {version} ({mode}) is too old: {OLDEST} is needed.",
        )
    return Finding(Level.OK, name, f"{kind} {version} ({mode}).")


def about_latency(name: str, seconds: float, timeout_s: float) -> Finding:
    text = f"It answers within {seconds * 1000:.1f} ms; the time limit of a call is {timeout_s * 1000:.0f} ms."
    return Finding(Level.WARNING if seconds > timeout_s / 2 else Level.OK, f"latency of the {name}", text)


def about_eviction(name: str, info: dict[str, str]) -> Finding:
    subject = f"memory of the {name}"
    policy = info.get("maxmemory_policy", "?")
    if info.get("maxmemory", "0") == "0":
        return Finding(Level.NOTE, subject, f"It has no bound (policy {policy}): the server takes what there is.")
    if policy == "noeviction":
        return Finding(Level.WARNING, subject, "Nothing is evicted: when it is full, nothing new is stored.")
    if policy.startswith("allkeys"):
        level = Level.WARNING if policy.endswith("random") else Level.NOTE
        text = f"The policy is {policy}: should the counter be evicted, all entries count as gone. volatile-* keeps it."
        return Finding(level, subject, text)
    return Finding(Level.OK, subject, f"The policy is {policy}: entries may be evicted, and the counter stays.")


def about_persistence(name: str, info: dict[str, str]) -> Finding:
    subject = f"persistence of the {name}"
    if info.get("rdb_last_bgsave_status", "ok") != "ok":
        return Finding(Level.WARNING, subject, "The last snapshot failed; the server may refuse to be written to.")
    if info.get("aof_enabled") == "1":
        return Finding(Level.OK, subject, "What is written goes to its log; a crash loses the last second, or nothing.")
    return Finding(Level.NOTE, subject, "There is no log: a restart may lose what is stored, and nothing but that.")


def about_replicas(name: str, info: dict[str, str]) -> Finding:
    subject = f"replicas of the {name}"
    count = info.get("connected_slaves", "0")
    if count == "0":
        return Finding(Level.NOTE, subject, "There are none.")
    text = f"There are {count}. They follow a little later: a failover may lose the last removals."
    return Finding(Level.NOTE, subject, text)
