"""What happens to a fleet: a list of steps, drawn by a seed, that can be replayed and shortened."""

from __future__ import annotations

import random
from math import inf
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Sequence

USERS: Final = ("alice", "bob")

CUTS: Final = ("requests", "replies", "news", "all")
"""What a partition takes from a node: what it asks, what it is answered, what it hears, or everything."""


ASKERS: Final = (None, None, *USERS)
CHANGES: Final = frozenset({"invalidate", "put", "tag", "clear", "switch"})
FAULTS: Final = frozenset({"cut", "mend", "swizzle", "kill", "restart"})
MOST_CUT: Final = 8

KEYED: Final = frozenset({"ask", "ask_active", "invalidate", "put", "tag"})
OTHERS: Final = frozenset({"clear", "switch", "cut", "mend", "kill", "start", "stop_server", "start_server"})
"""The steps that a schedule may have: those about a key, and the others."""

LONG: Final = 0.06
"""So often so much time passes that lifetimes, leases and rests end."""

AGAIN: Final = 0.4
"""So often the next step is about the same as the last one: what goes wrong goes wrong where things meet."""


class Faults(Struct, frozen=True):
    """What may go wrong. Delays are in seconds, one way; shares are of messages, from 0 to 1.

    `partitions` cuts single nodes off; `swizzle` cuts off a random set one by one
    and lets them back in another order; `kills` ends nodes and starts them again;
    `restarts` takes the server down, which comes back with or without its data;
    `skew`: so many seconds may a node's clock be wrong, either way.
    """

    longest_delay_s: float = 0.12
    lost: float = 0.02
    doubled: float = 0.03
    origin_fails: float = 0.03
    partitions: bool = True
    swizzle: bool = True
    kills: bool = True
    restarts: bool = True
    skew: float = 3.0


HEALTHY: Final = Faults(
    longest_delay_s=0.02,
    lost=0.0,
    doubled=0.0,
    origin_fails=0.0,
    partitions=False,
    swizzle=False,
    kills=False,
    restarts=False,
    skew=0.0,
)
"""A network on which everything arrives soon, and nothing dies."""


class Step(Struct, frozen=True):
    """`after_s` seconds after the step before, `what` happens to `node`; `detail` says how.

    `user`: whose entry of `key` it is about; None is everybody's.
    """

    after_s: float
    what: str
    node: int = 0
    key: str = ""
    user: str | None = None
    detail: str = ""

    def __str__(self) -> str:
        about = " ".join(part for part in (self.key, self.user and f"of {self.user}", self.detail) if part)
        return f"+{self.after_s:.3f} s  node {self.node}: {self.what} {about}".rstrip()


def drawn(seed: int, nodes: int, steps: int, faults: Faults, keys: Sequence[str]) -> tuple[Step, ...]:
    """The steps that `seed` stands for: about `steps` of them, more where faults come in groups."""
    rng = random.Random(f"schedule:{seed}")  # noqa: S311 (no secret: a run is to be repeated)
    found: list[Step] = []
    whats = whats_of(faults)
    while len(found) < steps:
        after_s = rng.choice((0.0, 0.0, rng.uniform(0, 0.05), rng.uniform(0, 0.3)))
        if rng.random() < LONG:
            after_s = rng.uniform(1, 15)
        what, node, key, user = rng.choice(whats), rng.randrange(nodes), rng.choice(keys), rng.choice(ASKERS)
        if found and found[-1].key and rng.random() < AGAIN:
            node, key, user = found[-1].node, found[-1].key, found[-1].user
        if what in CHANGES:
            found.append(change(rng, Step(after_s, what, node, key, user), nodes, keys))
        elif what in FAULTS:
            found += fault(rng, Step(after_s, what, node), nodes, keys)
        else:
            found.append(Step(after_s, what, node, key, user if what == "ask" else None))
    return tuple(found)


def whats_of(faults: Faults) -> list[str]:
    """What may happen, as often as it is likely."""
    whats = ["ask"] * 12 + ["ask_active"] * 3 + ["invalidate"] * 4 + ["put"] * 2 + ["tag", "tag", "clear", "switch"]
    whats += ["cut", "cut"] * faults.partitions + ["mend"] * faults.partitions + ["swizzle"] * faults.swizzle
    return whats + ["kill"] * faults.kills + ["restart"] * faults.restarts


def change(rng: random.Random, step: Step, nodes: int, keys: Sequence[str]) -> Step:
    """A change: by the node that may make it, of a key of which it can be made."""
    what, key = step.what, step.key
    if what == "tag" and not is_tagged(key):
        what = "invalidate"
    if what == "put":
        key = rng.choice([each for each in keys if each.startswith("w")])
    user = step.user if what in {"invalidate", "switch"} else None
    node = who_says(key, step.node, nodes) if what in {"invalidate", "tag", "put"} else step.node
    return Step(step.after_s, what, node, "" if what == "switch" else key, user)


def fault(rng: random.Random, step: Step, nodes: int, keys: Sequence[str]) -> list[Step]:
    """A fault, and what belongs to it."""
    after_s, node = step.after_s, step.node
    match step.what:
        case "cut":
            return [Step(after_s, "cut", node, detail=rng.choice(CUTS))]
        case "restart":
            down_s, how = rng.choice((0.0, 0.2, 5.0)), rng.choice(("", "empty"))
            return [Step(after_s, "stop_server"), Step(down_s, "start_server", detail=how)]
        case "kill":
            return [step, Step(rng.uniform(1, 4), "start", node)]
        case "swizzle":
            return swizzled(rng, nodes, keys)
        case _:
            return [step]


def swizzled(rng: random.Random, nodes: int, keys: Sequence[str]) -> list[Step]:
    """Some nodes are cut off one by one, and come back in another order, while all go on (FoundationDB)."""
    found: list[Step] = []
    cut = rng.sample(range(nodes), rng.randint(1, min(nodes, MOST_CUT)))
    for action, order in (("cut", cut), ("mend", rng.sample(cut, len(cut)))):
        for each in order:
            key = rng.choice(keys)
            found += (
                Step(rng.uniform(0, 0.5), action, each, detail="all"),
                Step(0.0, "ask", rng.randrange(nodes), rng.choice(keys)),
                Step(0.0, "invalidate", who_says(key, rng.randrange(nodes), nodes), key),
            )
    return found


def check_fleet(nodes: int, steps: int, ttl_s: float, faults: Faults) -> None:
    """ValueError where there can be no such fleet, or less could go wrong in it than was meant."""
    if nodes < 1:
        msg = "a fleet has at least one node"
        raise ValueError(msg)
    if steps < 0:
        msg = "steps is a number from 0 on"
        raise ValueError(msg)
    if not 0.0 < ttl_s < inf:
        msg = "ttl_s is a finite number of seconds above 0"
        raise ValueError(msg)
    for name in ("lost", "doubled", "origin_fails"):
        if not 0.0 <= getattr(faults, name) <= 1.0:
            msg = f"{name} is a share, from 0 to 1"
            raise ValueError(msg)
    for name in ("longest_delay_s", "skew"):
        if not 0.0 <= getattr(faults, name) < inf:
            msg = f"{name} is a finite number of seconds from 0 on"
            raise ValueError(msg)


def check_step(step: Step, nodes: int, keys: Sequence[str]) -> None:
    """ValueError where `step` cannot be performed in a fleet of so many nodes."""
    wrong = None
    if not 0.0 <= step.after_s < inf:
        wrong = "time does not go back"
    elif not 0 <= step.node < nodes:
        wrong = f"there are nodes 0 to {nodes - 1}"
    elif step.what not in KEYED | OTHERS:
        wrong = "no such step"
    elif step.what in KEYED and step.key not in keys:
        wrong = f"keys are {', '.join(keys)}"
    elif step.what == "put" and not step.key.startswith("w"):
        wrong = "values are put under keys with a w"
    elif step.what == "cut" and step.detail not in CUTS:
        wrong = f"cuts are {', '.join(CUTS)}"
    elif step.user not in ASKERS:
        wrong = f"users are {', '.join(USERS)}, or None"
    if wrong is not None:
        msg = f"{step}: {wrong}"
        raise ValueError(msg)


def is_tagged(key: str) -> bool:
    """Whether values of `key` bear it as their tag.

    Others are asked for as plainly as can be, which has a path of its own in the cache.
    """
    return key in {"a", "w0"}


def who_says(key: str, node: int, nodes: int) -> int:
    """Who changes `key`: `node`, unless values are put there by hand. Then a single one says what they are."""
    return int(key[1:]) % nodes if key.startswith("w") else node
