"""README.md says what is so: its snippets run, its tables are those of the code, and what it names exists.

A section's snippets are run in their order, statement by statement, as in
`python -m asyncio`, each section in a new namespace that begins with the
prelude. `# -> x` behind an expression: its repr is x. A `text` block behind a
snippet: what the snippet has printed. A snippet under `<!-- ci: quick start -->`
or `<!-- script -->` is a program of its own, one under `<!-- server -->` or
`<!-- origin -->` too, with a server at the place it names; one under `<!-- pytest -->` is a file for pytest.
The snippets of a section under `<!-- session: NAME -->` and `<!-- session -->` are one session in a folder: Python
that is saved under that name and run, and commands for a shell.
"""

from __future__ import annotations

import ast
import asyncio
import contextlib
import inspect
import io
import itertools
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeGuard

import pytest
from returns.result import Failure, Result, Success

import cachemesh
from cachemesh import CacheError, CacheExpired, CachePolicy, Freshness, Lifetime, SyncCache
from cachemesh.core import BUILT_IN, Get, Join, State, reduce
from cachemesh.testing import VirtualClock
from tests.readme_origin import origin
from tests.stores.servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).resolve().parent.parent
README: Final = (ROOT / "README.md").read_text("utf-8")
TIMEOUT_S: Final = 600

BLOCK: Final = re.compile(
    r"(?:^<!-- (?P<mark>[^>\n]+) -->\n+)?^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


@dataclass(frozen=True)
class Snippet:
    """A block of Python, and what it is to print."""

    section: str
    line: int
    mark: str
    source: str
    printed: str | None

    def __str__(self) -> str:
        return f"{self.section}-{self.line}"


def snippets() -> Iterator[Snippet]:
    """The Python of the README, in its order."""
    headings = [(found.start(), found[1]) for found in re.finditer(r"^## (.+)$", README, re.MULTILINE)]
    blocks = list(BLOCK.finditer(README))
    for block, following in itertools.zip_longest(blocks, blocks[1:]):
        if block["language"] != "python":
            continue
        section = next(name for start, name in reversed(headings) if start < block.start())
        is_followed = following is not None and following["language"] == "text"
        between = README[block.end() : following.start()] if is_followed else "no output"
        printed = following["text"] if not between.strip() else None
        line = README.count("\n", 0, block.start("text")) + 1
        yield Snippet(section.strip("`"), line, block["mark"] or "", block["text"], printed)


SNIPPETS: Final = list(snippets())
PRELUDE: Final = next(snippet for snippet in SNIPPETS if snippet.mark == "prelude")
CHAINED: Final = {
    section: list(found)
    for section, found in itertools.groupby(
        (snippet for snippet in SNIPPETS if snippet.mark in {"", "prelude"}), key=lambda snippet: snippet.section
    )
}


# What runs


@pytest.mark.parametrize("section", CHAINED)
def test_the_snippets_of_a_section_answer_what_they_say(section: str) -> None:
    with asyncio.Runner() as runner:
        namespace: dict[str, Any] = {"__name__": "__main__"}
        for snippet in (PRELUDE, *(each for each in CHAINED[section] if each is not PRELUDE)):
            said = io.StringIO()
            with contextlib.redirect_stdout(said):
                execute(snippet, namespace, runner)
            assert said.getvalue() == (snippet.printed or ""), f"README.md:{snippet.line}"


@pytest.mark.parametrize("snippet", [each for each in SNIPPETS if each.mark in {"ci: quick start", "script"}], ids=str)
def test_a_program_prints_what_it_says(snippet: Snippet, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    path.write_text(snippet.source, "utf-8")

    assert output_of("-W", "error", str(path)) == snippet.printed


@pytest.mark.parametrize("snippet", [each for each in SNIPPETS if each.mark == "server"], ids=str)
def test_a_program_prints_what_it_says_of_a_server(snippet: Snippet, tmp_path: Path) -> None:
    path = tmp_path / "program.py"
    with Server() as server:
        path.write_text(snippet.source.replace("redis://localhost:6379", server.url), "utf-8")
        assert output_of("-W", "error", str(path)) == snippet.printed


@pytest.mark.parametrize("snippet", [each for each in SNIPPETS if each.mark == "origin"], ids=str)
def test_a_program_prints_what_it_says_of_an_origin(
    snippet: Snippet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "program.py"
    monkeypatch.chdir(tmp_path)
    with origin() as place:
        path.write_text(re.sub(r"(http|ws)s://api\.example\.org", rf"\1://{place}", snippet.source), "utf-8")
        assert output_of("-W", "error", str(path)) == snippet.printed


@pytest.mark.parametrize("snippet", [each for each in SNIPPETS if each.mark == "pytest"], ids=str)
def test_a_test_file_passes(snippet: Snippet, tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(snippet.source, "utf-8")

    assert " passed in " in output_of("-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", str(tmp_path))


@pytest.mark.parametrize("section", sorted({each.section for each in SNIPPETS if each.mark.startswith("session")}))
def test_a_session_prints_what_it_says(section: str, tmp_path: Path) -> None:
    """In a terminal of 126 columns. The id of a log is another one each time."""
    heading = README.index(f"\n## {section}\n")
    blocks = list(BLOCK.finditer(README, heading, README.index("\n## ", heading + 1)))
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHON": sys.executable, "COLUMNS": "126"}
    compared = 0
    for block, following in zip(blocks, [*blocks[1:], None], strict=True):
        mark = block["mark"] or ""
        if not mark.startswith("session"):
            continue
        name = mark.removeprefix("session").removeprefix(": ") or "commands.sh"
        (tmp_path / name).write_text(COMMAND * (name == "commands.sh") + block["text"], "utf-8")
        command = ["bash", name] if name == "commands.sh" else [sys.executable, "-W", "error", name]
        run = subprocess.run(  # noqa: S603 (our own README)
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
        said = following["text"] if following is not None and following["language"] == "text" else ""
        assert (run.returncode, run.stderr) == (0, ""), name
        assert plain(run.stdout) == plain(said)
        compared += bool(said)
    assert compared


COMMAND: Final = 'cachemesh() { "$PYTHON" -m cachemesh "$@"; }\n'


def plain(printed: str) -> list[str]:
    """Its lines, without what is at their ends and without ids."""
    return [re.sub(r"\b[0-9a-f]{16}\b", "ID", line.rstrip()) for line in printed.splitlines()]


def execute(snippet: Snippet, namespace: dict[str, Any], runner: asyncio.Runner) -> None:
    """Run `snippet`, and compare what its expressions are with what it says of them."""
    lines = snippet.source.splitlines()
    compared = 0
    for statement in ast.parse(snippet.source).body:
        expected = re.search(r"  # -> (.+)$", lines[(statement.end_lineno or 0) - 1])
        where = f"README.md:{snippet.line + statement.lineno - 1}"
        if isinstance(statement, ast.Expr):
            value = evaluate(ast.Expression(statement.value), "eval", where, namespace, runner)
            if expected is not None:
                assert repr(value) == expected[1], where
                compared += 1
        else:
            evaluate(ast.Module([statement], []), "exec", where, namespace, runner)
    assert compared == snippet.source.count("# -> "), f"README.md:{snippet.line}: an arrow is at no expression"


def evaluate(tree: ast.AST, mode: str, where: str, namespace: dict[str, Any], runner: asyncio.Runner) -> Any:
    code = compile(tree, where, mode, flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)  # type: ignore[call-overload]
    if not code.co_flags & inspect.CO_COROUTINE:
        return runner.run(at_once(lambda: eval(code, namespace)))  # noqa: S307 (our own README)
    return runner.run(eval(code, namespace))  # noqa: S307 (our own README)


async def at_once(act: Callable[[], object]) -> object:
    """`act` inside the event loop, as in `python -m asyncio`."""
    return act()


def output_of(*command: str) -> str:
    """What Python prints when it is started with `command`; it must succeed."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    run = subprocess.run(  # noqa: S603 (our own README)
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


# What is said


def test_the_policy_table_is_that_of_the_code() -> None:
    assert table_under("policies") == [
        ["policy", "missing", "fresh", "stale", "after a failed fetch", "heeds cached failures"],
        *(cells(policy) for policy in BUILT_IN),
    ]


def cells(policy: CachePolicy) -> list[str]:
    name = f"`{policy.name}`" + (" (default)" if policy == default_policy() else "")
    heeds = "yes" if policy.heeds_failures else "no"
    return [name, policy.missing.value, policy.fresh.value, policy.stale.value, policy.after_failure.value, heeds]


def test_the_table_of_windows_is_that_of_the_code() -> None:
    head, *rows = table_under("windows")

    assert [cell.partition(":")[0] for cell in head[1:4]] == [each.value for each in WINDOWED]
    assert rows == [windowed_cells(policy) for policy in BUILT_IN]


WINDOWED: Final = (Freshness.AGEING, Freshness.GRACE, Freshness.EXPIRED)


def windowed_cells(policy: CachePolicy) -> list[str]:
    return [cells(policy)[0], *(policy.action(each).value for each in WINDOWED), takes_an_old_value(policy)]


def takes_an_old_value(policy: CachePolicy) -> str:
    """What a caller takes from a fetch that fails, as the core notes it down when it joins one."""
    _, effects = reduce(State(), Get("key", now=0.0, flight_id=1, policy=policy))
    join = next((effect for effect in effects if isinstance(effect, Join)), None)
    if join is None or not (join.reads or join.falls_back):
        return "never"
    return "within either window" if join.falls_back else "within `stale_if_error_for`"


@pytest.mark.parametrize("policy", BUILT_IN, ids=lambda policy: policy.name)
@pytest.mark.parametrize("window", ["serve_stale_for", "stale_if_error_for"])
def test_a_failed_fetch_brings_the_old_value_as_the_table_of_windows_says(policy: CachePolicy, window: str) -> None:
    row = next(row for row in table_under("windows")[1:] if row[0].startswith(f"`{policy.name}`"))
    asked: list[str] = []

    def fail() -> Result[str, str]:
        asked.append("origin")
        return Failure("down")

    clock = VirtualClock()
    with SyncCache(clock=clock) as cache:
        cache.put("key", "old", ttl=Lifetime.model_validate({"ttl": 1, window: 10}))
        clock.advance(2)
        answer = cache.get("key", fail, policy=policy)

    if row[4] == "within either window" or row[4] == f"within `{window}`":
        assert (answer, asked) == (Success("old"), ["origin"])
    elif row[2] == "serve_and_refresh":
        assert answer == Success("old"), "its grace, and no matter of failures"
    else:
        assert answer in {Failure("down"), Failure(CacheExpired("key"))}


def default_policy() -> CachePolicy:
    default: CachePolicy = inspect.signature(cachemesh.Cache.get).parameters["policy"].default
    return default


def test_the_error_table_names_every_error_with_its_fields() -> None:
    public = (getattr(cachemesh, name) for name in cachemesh.__all__)
    errors = {each for each in public if inspect.isclass(each) and issubclass(each, CacheError)} - {CacheError}
    said = [row[0] for row in table_under("errors")[1:]]

    assert sorted(said) == sorted(f"`{each.__name__}({', '.join(fields(each))})`" for each in errors)


def fields(error: type[CacheError]) -> list[str]:
    return list(inspect.signature(error).parameters)


def table_under(mark: str) -> list[list[str]]:
    """The cells of the table under `<!-- mark -->`, without the line that rules it off."""
    found = re.search(rf"^<!-- {mark} -->\n((?:\|.*\n)+)", README, re.MULTILINE)
    assert found is not None
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in found[1].splitlines()]
    return [rows[0], *rows[2:]]


def test_every_logger_method_is_named() -> None:
    methods = {name for name in vars(cachemesh.CacheLogger) if name.startswith("on_")}

    assert {name for name in methods if f"`{name}`" not in README} == set()


def test_what_the_readme_names_exists() -> None:
    paths = re.findall(r"`((?:examples|docs|tests|benchmarks)/[\w/.]*|[A-Z]+\.md)", README)
    paths += re.findall(r"!\[[^\]]+\]\(([^)]+)\)", README)

    assert paths
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_claim_is_shown_by_a_test_that_exists() -> None:
    rows = [line for line in README.splitlines() if line.startswith("| ") and "::test_" in line]
    for row in rows:
        named = re.findall(r"`([\w/.]*)::(\w+)`", row)
        path = ROOT / named[0][0]
        tests = {node.name for node in ast.walk(ast.parse(path.read_text("utf-8"))) if is_function(node)}
        assert {test for _, test in named} <= tests, f"{path} has no such test"

    assert rows


def is_function(node: ast.AST) -> TypeGuard[ast.FunctionDef | ast.AsyncFunctionDef]:
    return isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)


def test_every_example_is_named() -> None:
    assert [path.name for path in (ROOT / "examples").glob("*.py") if f"examples/{path.name}" not in README] == []


def test_every_decision_is_linked_from_contributing() -> None:
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")

    assert [path.name for path in (ROOT / "docs" / "decisions").glob("*.md") if path.name not in contributing] == []


@pytest.mark.parametrize("command", ["cachemesh demo", "python -m pytest"])
def test_each_of_the_two_commands_is_one_line_and_complete(command: str) -> None:
    (line,) = (line for line in README.splitlines() if line.startswith("python3 -m venv") and line.endswith(command))

    assert line.startswith("python3 -m venv .venv && .venv/bin/pip install -q ")
