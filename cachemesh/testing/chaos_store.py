"""`ChaosStore`: a store in which chance decides what goes wrong, and a seed decides chance."""

from __future__ import annotations

from random import Random
from typing import TYPE_CHECKING

from cachemesh.testing.store_around import REMOVALS, Fault, FaultLike, StoreAround, StoreAsked, operations_of

if TYPE_CHECKING:
    from collections.abc import Collection

    from cachemesh.shell.ports import Store


class ChaosStore(StoreAround):
    """The store `inner`, of whose calls a share fails, is lost, hangs or takes its time. A seed repeats itself.

    `fail`: the share that raises and does nothing. `fail_after`: that is done,
    and raises. `lose`: of reads that find nothing and of writes that keep
    nothing; a removal is never lost without a word, since no cache can make up
    for that. `hang`: that answers only once the store is healed. `delay`: that
    takes up to `longest_s` seconds of its event loop. `operations`: those that
    are concerned; all where none is named.

    >>> import asyncio
    >>> from cachemesh.core import GLOBAL_OWNER
    >>> from cachemesh.stores import MemoryStore
    >>> store = ChaosStore(MemoryStore(), seed=7, fail=0.5)
    >>> for key in "abcd":
    ...     try:
    ...         asyncio.run(store.read(GLOBAL_OWNER, key))
    ...     except OSError as error:
    ...         print(key, error)
    a read fails, as it was told to
    c read was done, and its reply was lost, as it was told to
    d read fails, as it was told to

    Its repr tells the seed, for the message of a test that fails:

    >>> store
    ChaosStore(MemoryStore(0 entries, max_entries=65536), seed=7, 3 faults in 4 calls)
    """

    def __init__(  # noqa: PLR0913 (shares, by keyword only)
        self,
        inner: Store,
        *,
        seed: int = 0,
        fail: float = 0.1,
        fail_after: float = 0.05,
        lose: float = 0.05,
        hang: float = 0.0,
        delay: float = 0.0,
        longest_s: float = 1.0,
        operations: Collection[str] = (),
    ) -> None:
        shares = (fail, fail_after, lose, hang, delay)
        if not (all(share >= 0.0 for share in shares) and sum(shares) <= 1.0):
            msg = f"shares are not negative, and at most 1 in all: {shares}"
            raise ValueError(msg)
        super().__init__(inner)
        self.seed = seed
        self._random = Random(seed)  # noqa: S311 (a seed is to repeat itself)
        self._shares = dict(zip((*Fault, "delay"), (fail, fail_after, lose, hang, delay), strict=True))
        self._longest_s = longest_s
        self._operations = operations_of(operations)
        self._faults: list[tuple[StoreAsked, FaultLike]] = []
        self._is_well = False

    @property
    def faults(self) -> tuple[tuple[StoreAsked, FaultLike], ...]:
        """What has gone wrong so far: the calls, each with its fault or with the seconds that it took."""
        return tuple(self._faults)

    def heal(self) -> None:
        """Be well from now on. Calls that hang go on."""
        self._is_well = True
        super().heal()

    def fault_for(self, asked: StoreAsked) -> FaultLike | None:
        """What chance has for this call. Each call draws twice, so that one more operation shifts no other's fate."""
        with self._lock:
            drawn, length = self._random.random(), self._random.random()
            if self._is_well or asked.operation not in self._operations:
                return None
            fault = self._drawn(drawn, length)
            if fault is None or (fault is Fault.LOSE and asked.operation in REMOVALS):
                return None
            self._faults.append((asked, fault))
            return fault

    def __repr__(self) -> str:
        told = f"{len(self._faults)} faults in {len(self.asked)} calls"
        return f"ChaosStore({self.inner!r}, seed={self.seed}, {told})"

    def _drawn(self, drawn: float, length: float) -> FaultLike | None:
        below = 0.0
        for fault, share in self._shares.items():
            below += share
            if drawn < below:
                return fault if isinstance(fault, Fault) else length * self._longest_s
        return None
