"""The types of the public contract, proved by mypy: the files beside this one must pass its strict mode.

Each says with `assert_type` what arrives, and with `# type: ignore[code]` what
must not type-check: strict mode complains of the day on which it does.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

HERE: Final = Path(__file__).resolve().parent
ROOT: Final = HERE.parent.parent


def test_types_flow_from_the_fetcher_to_the_caller() -> None:
    pytest.importorskip("mypy", reason="mypy comes with the extra `dev`")

    assert checked(HERE) == "", "mypy finds fault with tests/typing"


def test_a_wrong_type_would_be_found(tmp_path: Path) -> None:
    """What mypy does not look at, it does not complain of either."""
    pytest.importorskip("mypy", reason="mypy comes with the extra `dev`")
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from cachemesh import Cache\n"
        "from tests.typing.fetchers import fetch\n"
        "async def main(cache: Cache) -> str:\n"
        "    return (await cache.get('me', fetch)).unwrap()\n",
        "utf-8",
    )

    assert 'wrong.py:4: error: Incompatible return value type (got "User", expected "str")' in checked(wrong)


def checked(path: Path) -> str:
    """What mypy has to say of `path`, with the settings of the project."""
    command = [sys.executable, "-m", "mypy", "--config-file", str(ROOT / "mypy.ini"), "--no-error-summary", str(path)]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=600)  # noqa: S603 (our own command)
    return run.stdout + run.stderr
