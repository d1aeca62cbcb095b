"""Every example runs, in a process of its own, and asserts what it says. A warning is a failure.

An example is a file, or a folder with a `__main__.py` that plays itself when it is told `--script`.
"""

from __future__ import annotations

import ast
import os
import re
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def test_examples_of_tests_pass(tmp_path: Path) -> None:
    """In a folder of somebody else's, with no settings, and with the fixtures of the plugin alone."""
    for path in TESTS:
        (tmp_path / path.name).write_text(path.read_text("utf-8"), "utf-8")
    command = ["-m", "pytest", "-v", "-W", "error", "-p", "no:cacheprovider", "-p", "cachemesh.testing.plugin", "."]
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
    for path in TESTS:
        assert f"{path.name}::" in run.stdout, "no test in it"


@pytest.mark.parametrize("path", TESTS, ids=lambda path: path.stem)
def test_example_of_a_test_is_described_and_on_the_page(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text("utf-8")))
    assert path.name in (ROOT / "docs" / "testing.md").read_text("utf-8")


def test_staleness_is_drawn_and_its_stars_are_the_front(tmp_path: Path) -> None:
    picture = tmp_path / "picture.png"
    run = subprocess.run(  # noqa: S603 (our own script)
        [sys.executable, "-W", "error", str(ROOT / "examples" / "staleness.py"), str(picture)],
        env=os.environ | {"PYTHONPATH": str(ROOT), "MPLCONFIGDIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
        timeout=TIMEOUT_S,
    )
    row = re.compile(r"^([* ]) (\w+), ttl .*? +(\d+) +([\d.]+) s +([\d.]+)%$", re.MULTILINE)
    rows = [
        (star, policy, (int(load), float(old)), failed) for star, policy, load, old, failed in row.findall(run.stdout)
    ]
    answering = [figures for _, _, figures, failed in rows if failed != "100.0"]

    assert len(rows) == 5 * 5
    assert {policy for _, policy, _, failed in rows if failed == "100.0"} == {"cache_only"}
    assert {figures for _, policy, figures, _ in rows if policy == "network_only"} == {(max(answering)[0], 0.0)}
    assert {figures for star, _, figures, _ in rows if star == "*"} == {
        (load, old)
        for load, old in answering
        if not any(other != (load, old) and other[0] <= load and other[1] <= old for other in answering)
    }
    image = picture.read_bytes()
    assert image.startswith(b"\x89PNG\r\n\x1a\n")
    assert struct.unpack(">II", image[16:24]) == (1080, 720)
    assert len(set(zlib.decompress(b"".join(parts_of(image, b"IDAT"))))) > 50, "more than an empty sheet"


def parts_of(image: bytes, kind: bytes) -> Iterator[bytes]:
    """What the chunks of that kind hold (PNG, section 5)."""
    at = 8
    while at < len(image):
        length, name = struct.unpack(">I4s", image[at : at + 8])
        if name == kind:
            yield image[at + 8 : at + 8 + length]
        at += length + 12


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_example_tells_what_it_is_for_and_asserts_it(path: Path) -> None:
    trees = [ast.parse(each.read_text("utf-8")) for each in (path.glob("*.py") if path.is_dir() else [path])]

    assert all(ast.get_docstring(tree) for tree in trees)
    assert any(isinstance(node, ast.Assert) for tree in trees for node in ast.walk(tree))
    assert f"examples/{path.name}" in (ROOT / "README.md").read_text("utf-8")
