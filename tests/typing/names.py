"""What type checkers know of the public names, though these are imported late. None of this is ever run."""

from __future__ import annotations

from typing import assert_type

import cachemesh


def a_public_name_is_what_its_module_says() -> None:
    assert_type(cachemesh.Cache(), cachemesh.Cache)
    cachemesh.Cache(tll=1)  # type: ignore[call-arg]
    cachemesh.Cash()  # type: ignore[attr-defined]
