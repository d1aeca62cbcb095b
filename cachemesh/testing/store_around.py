"""A store around another one, in which calls may fail, hang or be lost. `FlakyStore` and `ChaosStore` say which.

It is a `SharedStore` where the inner one is, and a `Backplane` where that is
one; never a `DirectStore`, since what is read without waiting cannot hang.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from enum import StrEnum
from functools import cache
from math import inf
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, TypeAlias, TypeVar, cast

from msgspec import Struct
from msgspec.structs import replace

from cachemesh.core.scopes import Owner
from cachemesh.shell.ports import Backplane, SharedStore
from cachemesh.testing.gate import Gate

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
    from typing import Self

    from cachemesh.shell.ports import Claim, News, Store, StoredEntry

T = TypeVar("T")

READS: Final = frozenset({"read", "read_many", "claim", "keys"})
WRITES: Final = frozenset({"write", "commit"})
REMOVALS: Final = frozenset({"delete", "clear_partition", "clear", "mark_tag"})
OPERATIONS: Final = READS | WRITES | REMOVALS | {"release", "flush"}

GROUPS: Final = {"reads": READS, "writes": WRITES, "removals": REMOVALS}
"""Names for several operations. What a fetch has brought is written with `commit` where the store is a shared one."""


class Fault(StrEnum):
    """What may become of a call."""

    FAIL = "fail"
    """It raises `StoreFault`, and nothing is done."""
    FAIL_AFTER = "fail_after"
    """It is done, and raises `StoreFault`: the reply is lost."""
    LOSE = "lose"
    """It says that it is done, and is not; what is read is not there."""
    HANG = "hang"
    """It does not answer until the store is healed."""


FaultLike: TypeAlias = "Fault | BaseException | float"
"""A fault, an exception to raise, or the seconds that the call takes."""


class StoreFault(OSError):
    """What a call to a `FlakyStore` or a `ChaosStore` raises."""


class StoreAsked(Struct, frozen=True):
    """Call number `number` (from 1 on) to a store. No owner is everything, no key all of the owner."""

    number: int
    operation: str
    owner: Owner | None = None
    key: str | None = None


class StoreAround(ABC):
    """The store `inner`, with faults. `asked`: the calls so far."""

    def __new__(cls, inner: Store, *_: Any, **__: Any) -> Self:  # noqa: ANN401 (whatever `__init__` takes)
        made: Self = object.__new__(_variant(cls, isinstance(inner, SharedStore), isinstance(inner, Backplane)))
        return made

    def __init__(self, inner: Store) -> None:
        self.inner: Any = inner
        self._asked: list[StoreAsked] = []
        self._hanging = 0
        self._lock = Lock()
        self._gate = Gate()
        self._gate.shut()

    @abstractmethod
    def fault_for(self, asked: StoreAsked) -> FaultLike | None:
        """What becomes of a call; None where all is well."""

    def heal(self) -> None:
        """Let the calls that hang go on."""
        with self._lock:
            gate, self._gate = self._gate, Gate()
            self._gate.shut()
        gate.open()

    @property
    def asked(self) -> tuple[StoreAsked, ...]:
        """The calls so far, in the order in which they came."""
        return tuple(self._asked)

    def asked_for(self, *operations: str) -> tuple[StoreAsked, ...]:
        """The calls of these operations, or groups of them ("reads", "writes", "removals"), so far."""
        named = operations_of(operations)
        return tuple(asked for asked in self.asked if asked.operation in named)

    @property
    def hanging(self) -> int:
        """How many calls hang."""
        return self._hanging

    # The store

    async def read(self, owner: Owner, key: str) -> StoredEntry | None:
        """As `Store.read`, if all is well."""
        nothing: StoredEntry | None = None
        return await self._call("read", owner, key, lambda: self.inner.read(owner, key), nothing)

    async def write(self, entry: StoredEntry) -> None:
        """As `Store.write`, if all is well."""
        await self._call("write", entry.owner, entry.key, lambda: self.inner.write(entry), None)

    async def delete(self, owner: Owner, key: str) -> None:
        """As `Store.delete`, if all is well."""
        await self._call("delete", owner, key, lambda: self.inner.delete(owner, key), None)

    async def clear_partition(self, owner: Owner) -> None:
        """As `Store.clear_partition`, if all is well."""
        await self._call("clear_partition", owner, None, lambda: self.inner.clear_partition(owner), None)

    async def clear(self) -> None:
        """As `Store.clear`, if all is well."""
        await self._call("clear", None, None, lambda: self.inner.clear(), None)  # noqa: PLW0108 (looked up when called)

    async def keys(self, owner: Owner) -> Collection[str]:
        """As `Store.keys`, if all is well."""
        none: Collection[str] = ()
        return await self._call("keys", owner, None, lambda: self.inner.keys(owner), none)

    async def _call(
        self, operation: str, owner: Owner | None, key: str | None, act: Callable[[], Awaitable[T]], lost: T
    ) -> T:
        """Do `act`, unless a fault is due. `lost`: what is answered where it is not done."""
        fault = await self._fault(operation, owner, key)
        if fault is Fault.LOSE:
            return lost
        answer = await act()
        if fault is Fault.FAIL_AFTER:
            raise _lost_reply(operation)
        return answer

    async def _fault(self, operation: str, owner: Owner | None, key: str | None) -> Fault | None:
        """What is left to be done about the fault that is due: nothing, `LOSE` or `FAIL_AFTER`."""
        with self._lock:
            asked = StoreAsked(len(self._asked) + 1, operation, owner, key)
            self._asked.append(asked)
            gate = self._gate
        fault = self.fault_for(asked)
        if isinstance(fault, BaseException):
            raise fault
        if fault is Fault.FAIL:
            msg = f"{operation} fails, as it was told to"
            raise StoreFault(msg)
        if fault is Fault.HANG:
            with self._lock:
                self._hanging += 1
            try:
                await gate.passed()
            finally:
                with self._lock:
                    self._hanging -= 1
            return None
        if isinstance(fault, Fault) or fault is None:
            return fault
        await asyncio.sleep(fault)
        return None


class _Shared:
    """What a `SharedStore` has beside. In front of a `StoreAround`."""

    inner: Any
    _call: Any
    _fault: Any

    async def read_many(self, places: Sequence[tuple[Owner, str]], /) -> Sequence[StoredEntry | None]:
        nothing = [None] * len(places)
        found = await self._call("read_many", None, None, lambda: self.inner.read_many(places), nothing)
        return cast("Sequence[StoredEntry | None]", found)

    async def claim(self, owner: Owner, key: str, *, waits: bool, knows_none: bool = False) -> Claim:
        fault = await self._fault(operation := "claim", owner, key)
        claim: Claim = await self.inner.claim(owner, key, waits=waits, knows_none=knows_none)
        if fault is Fault.FAIL_AFTER:
            raise _lost_reply(operation)
        return replace(claim, found=None) if fault is Fault.LOSE else claim

    async def commit(self, entry: StoredEntry, claim: Claim) -> bool | None:
        fault = await self._fault(operation := "commit", entry.owner, entry.key)
        if fault is Fault.LOSE:
            await self.inner.release(claim)
            return True
        kept: bool | None = await self.inner.commit(entry, claim)
        if fault is Fault.FAIL_AFTER:
            raise _lost_reply(operation)
        return kept

    async def release(self, claim: Claim) -> None:
        await self._call("release", claim.owner, claim.key, lambda: self.inner.release(claim), None)

    async def mark_tag(self, owner: Owner | None, tag: str, stale_at: float | None) -> None:
        await self._call("mark_tag", owner, None, lambda: self.inner.mark_tag(owner, tag, stale_at), None)

    async def flush(self) -> None:
        await self._call("flush", None, None, lambda: self.inner.flush(), None)  # noqa: PLW0108 (looked up when called)

    async def aclose(self) -> None:
        await self.inner.aclose()


class _Heard:
    """What a `Backplane` has beside."""

    inner: Any

    def listen(self, hear: Callable[[News], None], /) -> Callable[[], None]:
        ends: Callable[[], None] = self.inner.listen(hear)
        return ends


@cache
def _variant(of: type[Any], is_shared: bool, is_heard: bool) -> type[Any]:  # noqa: FBT001 (both answer for a mixin)
    """The class `of`, with what else its inner store has."""
    mixins = (*((_Shared,) if is_shared else ()), *((_Heard,) if is_heard else ()))
    return type(of.__name__, (*mixins, of), {"__module__": of.__module__}) if mixins else of


def operations_of(named: Iterable[str]) -> frozenset[str]:
    """The operations that are `named`, one by one or as groups; all where none is."""
    found: frozenset[str] = frozenset()
    for name in named:
        if name not in GROUPS and name not in OPERATIONS:
            msg = f"{name!r} is no operation of a store, and no group: {', '.join(sorted({*OPERATIONS, *GROUPS}))}"
            raise ValueError(msg)
        found |= GROUPS.get(name, {name})
    return found or OPERATIONS


def checked(fault: FaultLike) -> FaultLike:
    """`fault`, if it is one. TypeError, ValueError."""
    if isinstance(fault, Fault | BaseException):
        return fault
    if not isinstance(fault, int | float):
        msg = f"a fault is one of Fault, an exception, or a number of seconds, not {fault!r}"
        raise TypeError(msg)
    if not 0 <= fault < inf:
        msg = f"a call takes a finite number of seconds from 0 on, not {fault}"
        raise ValueError(msg)
    return fault


def _lost_reply(operation: str) -> StoreFault:
    return StoreFault(f"{operation} was done, and its reply was lost, as it was told to")
