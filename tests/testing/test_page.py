"""docs/testing.md: each of its files for pytest passes, and what it names is there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import cachemesh.testing

ROOT: Final = Path(__file__).resolve().parent.parent.parent
PAGE: Final = (ROOT / "docs" / "testing.md").read_text("utf-8")
BLOCKS: Final = re.findall(r"^<!-- pytest -->\n```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def test_every_snippet_is_a_file_of_tests_that_pass(tmp_path: Path) -> None:
    for number, block in enumerate(BLOCKS):
        (tmp_path / f"test_{number}.py").write_text(block, "utf-8")
    command = ["-m", "pytest", "-v", "-W", "error", "-p", "no:cacheprovider", "-p", "cachemesh.testing.plugin", "."]
    run = subprocess.run(  # noqa: S603 (our own page)
        [sys.executable, *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    for number in range(len(BLOCKS)):
        assert f"test_{number}.py::" in run.stdout, "no test in a snippet"


def test_there_is_no_snippet_that_is_not_run() -> None:
    assert PAGE.count("```python") == len(BLOCKS) > 0


def test_all_that_the_kit_has_is_on_the_page_but_for_its_smallest_parts() -> None:
    small = {"Fault", "StoreFault", "VirtualLoop"}

    assert [name for name in cachemesh.testing.__all__ if f"`{name}" not in PAGE and name not in PAGE] == sorted(small)


def test_the_files_to_copy_exist() -> None:
    named = set(re.findall(r"`(examples/testing/\w+\.py)`", PAGE))

    assert named == {f"examples/testing/{path.name}" for path in (ROOT / "examples" / "testing").glob("test_*.py")}
