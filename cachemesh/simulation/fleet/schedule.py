"""What happens to a fleet: a list of steps, drawn by a seed, that can be replayed and shortened."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Final

from msgspec import Struct

USERS: Final = ("alice", "bob")

CUTS: Final = ("requests", "replies", "news", "all")
"""What a partition takes from a node: what it asks, what it is answered, what it hears, or everything."""


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
    rng = random.Random(f"schedule:{seed}")
    found: list[Step] = []
    whats = ["ask"] * 12 + ["ask_active"] * 3 + ["invalidate"] * 4 + ["put"] * 2 + ["tag", "tag", "clear", "switch"]
    whats += ["cut", "cut"] * faults.partitions + ["mend"] * faults.partitions + ["swizzle"] * faults.swizzle
    whats += ["kill"] * faults.kills + ["restart"] * faults.restarts
    while len(found) < steps:
        after_s = rng.choice((0.0, 0.0, rng.uniform(0, 0.05), rng.uniform(0, 0.3)))
        if rng.random() < 0.06:  # noqa: PLR2004 (so that lifetimes, leases and rests end)
            after_s = rng.uniform(1, 15)
        what, node, key = rng.choice(whats), rng.randrange(nodes), rng.choice(keys)
        user = rng.choice((None, None, *USERS))
        if found and found[-1].key and rng.random() < AGAIN:
            node, key, user = found[-1].node, found[-1].key, found[-1].user
        if what == "tag" and not is_tagged(key):
            what = "invalidate"
        match what:
            case "ask":
                found.append(Step(after_s, what, node, key, user))
            case "invalidate" | "tag" | "put":
                if what == "put":
                    key = rng.choice([each for each in keys if each.startswith("w")])
                found.append(
                    Step(after_s, what, who_says(key, node, nodes), key, user if what == "invalidate" else None)
                )
            case "switch":
                found.append(Step(after_s, what, node, user=user))
            case "cut":
                found.append(Step(after_s, what, node, detail=rng.choice(CUTS)))
            case "restart":
                found.append(Step(after_s, "stop_server"))
                found.append(Step(rng.choice((0.0, 0.2, 5.0)), "start_server", detail=rng.choice(("", "empty"))))
            case "kill":
                found += [Step(after_s, what, node), Step(rng.uniform(1, 4), "start", node)]
            case "swizzle":
                cut = rng.sample(range(nodes), rng.randint(1, min(nodes, 8)))
                for action, order in (("cut", cut), ("mend", rng.sample(cut, len(cut)))):
                    for each in order:
                        found.append(Step(rng.uniform(0, 0.5), action, each, detail="all"))
                        found.append(Step(0.0, "ask", rng.randrange(nodes), rng.choice(keys)))
                        key = rng.choice(keys)
                        found.append(Step(0.0, "invalidate", who_says(key, rng.randrange(nodes), nodes), key))
            case _:
                found.append(Step(after_s, what, node, key))
    return tuple(found)


def is_tagged(key: str) -> bool:
    """Whether values of `key` bear it as their tag. Others are asked for as plainly as can be, which has a path of its
    own in the cache.
    """
    return key in {"a", "w0"}


def who_says(key: str, node: int, nodes: int) -> int:
    """Who changes `key`: `node`, unless values are put there by hand. Then a single one says what they are."""
    return int(key[1:]) % nodes if key.startswith("w") else node
