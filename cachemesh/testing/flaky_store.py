"""`FlakyStore`: a store that does what a test tells it to."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from msgspec import Struct

from cachemesh.testing.store_around import (
    Fault,
    FaultLike,
    StoreAround,
    StoreAsked,
    checked,
    operations_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cachemesh.shell.ports import Store

Script: TypeAlias = "Callable[[StoreAsked], FaultLike | None] | Sequence[FaultLike | None]"
"""What becomes of each call: a function of it, or a row of faults of which each call takes one; then all is well."""


class _Rule(Struct):
    """What becomes of certain calls, so often; None is for ever."""

    fault: FaultLike
    operations: frozenset[str]
    key: str | None
    left: int | None


class FlakyStore(StoreAround):
    """The store `inner`, whose calls fail, hang, are lost or take their time as a test says.

    >>> from returns.result import Success
    >>> from cachemesh import SyncCache
    >>> from cachemesh.stores import MemoryStore
    >>> store = FlakyStore(MemoryStore())
    >>> store.fail("reads", times=1)
    >>> with SyncCache(store=store) as cache:
    ...     cache.get("feed", lambda: Success("news"))
    <Success: news>
    >>> [asked.operation for asked in store.asked]
    ['read', 'write']

    `script`: a function of each call, or a row of faults; what was said with
    `fail` and its siblings goes before it. In a `SyncCache` a store lives in
    an event loop of its own: what takes its time there, takes real time.
    """

    def __init__(self, inner: Store, script: Script = ()) -> None:
        super().__init__(inner)
        self._script: Script = script
        self._rules: list[_Rule] = []

    def fail(
        self,
        *operations: str,
        error: BaseException | None = None,
        after: bool = False,
        key: str | None = None,
        times: int | None = None,
    ) -> None:
        """Let calls of these operations (or "reads", "writes", "removals"; all where none is named) raise.

        `error`: what; by default `StoreFault`. `after`: what is asked for is done,
        and then it raises `StoreFault`. `key`: those about it alone. `times`: so
        often; None is until `heal`.
        """
        fault = Fault.FAIL_AFTER if after else Fault.FAIL
        self._say(fault if error is None else error, operations, key, times)

    def hang(self, *operations: str, key: str | None = None, times: int | None = None) -> None:
        """Let such calls not answer until `heal`, or until who has asked gives up."""
        self._say(Fault.HANG, operations, key, times)

    def lose(self, *operations: str, key: str | None = None, times: int | None = None) -> None:
        """Let such calls say that they are done, and do nothing; what they read is not there."""
        self._say(Fault.LOSE, operations, key, times)

    def delay(self, seconds: float, *operations: str, key: str | None = None, times: int | None = None) -> None:
        """Let such calls take so many seconds of their event loop, and then be done."""
        self._say(seconds, operations, key, times)

    def heal(self) -> None:
        """Be well from now on. Calls that hang go on."""
        with self._lock:
            self._rules.clear()
            self._script = ()
        super().heal()

    def fault_for(self, asked: StoreAsked) -> FaultLike | None:
        """What was said last of such a call; then what the script says."""
        with self._lock:
            for rule in reversed(self._rules):
                if rule.left != 0 and asked.operation in rule.operations and rule.key in {None, asked.key}:
                    if rule.left is not None:
                        rule.left -= 1
                    return rule.fault
            script = self._script
        if callable(script):
            return script(asked)
        return script[asked.number - 1] if asked.number <= len(script) else None

    def __repr__(self) -> str:
        return f"FlakyStore({self.inner!r}, asked {len(self.asked)} times)"

    def _say(self, fault: FaultLike, operations: tuple[str, ...], key: str | None, times: int | None) -> None:
        checked(fault)
        if times is not None and times < 0:
            msg = f"times is a number from 0 on, or None, not {times}"
            raise ValueError(msg)
        rule = _Rule(fault, operations_of(operations), key, times)
        with self._lock:
            self._rules.append(rule)
