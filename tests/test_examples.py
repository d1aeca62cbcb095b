"""Every example runs, in a process of its own, and asserts what it says. A warning is a failure.

An example is a file, or a folder with a `__main__.py` that plays itself when it is told `--script`.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent
FOLDERS: Final = sorted(path.parent for path in (ROOT / "examples").glob("*/__main__.py"))
EXAMPLES: Final = [*sorted((ROOT / "examples").glob("*.py")), *FOLDERS]
TIMEOUT_S: Final = 120


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_runs(path: Path, tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-W", "error", str(path), *(["--script"] if path.is_dir() else [])]
    run = subprocess.run(  # noqa: S603 (our own script)
        command,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )

    assert (run.returncode, run.stderr) == (0, ""), run.stdout
    assert run.stdout.strip(), "an example says what it has shown"


TESTS: Final = sorted((ROOT / "examples" / "testing").glob("test_*.py"))


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_example_of_a_test_passes(path: Path, tmp_path: Path) -> None:
    """In a folder of somebody else's, with no settings, and with the fixtures of the plugin alone."""
    (tmp_path / path.name).write_text(path.read_text("utf-8"), "utf-8")
    command = ["-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "-p", "cachemesh.testing.plugin", "."]
    run = subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, *command],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )

    assert run.returncode == 0, run.stdout + run.stderr
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert path.name in (ROOT / "docs" / "testing.md").read_text("utf-8")


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_tells_what_it_is_for_and_asserts_it(path: Path) -> None:
    trees = [ast.parse(each.read_text("utf-8")) for each in (path.glob("*.py") if path.is_dir() else [path])]

    assert all(ast.get_docstring(tree) for tree in trees)
    assert any(isinstance(node, ast.Assert) for tree in trees for node in ast.walk(tree))
    assert f"examples/{path.name}" in (ROOT / "README.md").read_text("utf-8")
