"""The project around the package: what the wheel holds, which names are public, and that its papers agree."""

from __future__ import annotations

import ast
import inspect
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING, Any, Final
from zipfile import ZipFile

import pytest

import cachemesh

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT: Final = Path(__file__).resolve().parent.parent
PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]

CONTRACT: Final = """
    Fetcher SyncFetcher Ttl Clock DEFAULT CachePolicy CacheScope RefreshSource RetryOptions Cache SyncCache CacheState
    Watch Subscription cached TokenKeeperAdapter CacheLogger PrintLogger LoggingLogger CacheError CacheMiss CacheExpired
    NoActiveUser NoTokenKeeper FetchRaised InvalidFetchResult InvalidKey InvalidTtl ReentrantFetch FetchTimeout
    FetchCancelled StoreFailed UndecodableEntry CacheClosed
    Lifetime Fresh NotModified DoNotCache Previous CircuitOpen Batcher Served Refused
"""
"""The names that the public contract promises, and the issue on resilience with it."""

NEEDED_BESIDE: Final = {
    "Action": "a cell of a policy of one's own",
    "AfterFailure": "its last column",
    "BreakerOptions": "the setting `Cache(breakers=...)`",
    "Circuit": "what `circuit` answers",
    "CircuitState": "its field `state`",
    "Directed": "what a fetcher with directives is annotated with",
    "Duration": "what a `Lifetime` and the timeouts are given as",
    "Ending": "the field `ending` of an Explanation",
    "Explanation": "what `explain` answers",
    "FetchMany": "the second argument of `get_many`",
    "FetchOptions": "the options of `refresh`, for a wrapper's own `**options: Unpack[FetchOptions]`",
    "Freshness": "its columns",
    "GetOptions": "those of `get`",
    "InvalidOption": "the Failure of a get with a policy, scope, retry or user id of the wrong type",
    "MemoryStore": "the reference among the stores",
    "Source": "the field `source` of Served and Refused",
    "Store": "the protocol of `Cache(store=...)`",
    "StoredEntry": "what it reads and writes",
    "SyncBatcher": "`Batcher` over a SyncCache",
    "SyncFetchMany": "what it is made with",
    "SyncTokenKeeperAdapter": "the protocol of `SyncCache(token_keeper=...)`",
    "SyncUpdates": "what iterating over a SyncWatch gives",
    "Hydrated": "what `hydrate` answers",
    "InvalidSnapshot": "the Failure of `hydrate`",
    "Schema": "the option `schema` of a call, where a type alone does not do",
    "Snapshot": "what `dehydrate` answers",
    "SyncWatch": "what `SyncCache.watch` gives",
    "UpdateRaised": "the Failure of an `update` whose function raises",
    "Updates": "what `async with cache.watch(...)` gives",
    "ValueNotCopied": "the Failure of a value that `copy_on_read` or `freeze` could not take",
    "frozen": "a function for `freeze`",
    "retry_after": "a function for `failure_ttl`",
}
"""Names without which a user could not write down a type, or a policy."""

IMPORTED_AS: Final = {"rpds-py": "rpds", "typing-extensions": "typing_extensions"}


# The wheel


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ZipFile]:
    """The wheel of this tree, built without the network."""
    builders = pytest.importorskip("hatchling.builders.wheel", reason="hatchling comes with the extra `test`")
    folder = tmp_path_factory.mktemp("wheel")
    (built,) = builders.WheelBuilder(str(ROOT)).build(directory=str(folder), versions=["standard"])
    with ZipFile(built) as opened:
        yield opened


def test_wheel_holds_the_whole_package_with_its_types_and_the_data_of_the_demo(wheel: ZipFile) -> None:
    ours = {path.relative_to(ROOT).as_posix() for path in files_of_the_package()}

    assert {"cachemesh/py.typed", "cachemesh/demo/data/users.json"} < ours
    assert {name for name in wheel.namelist() if ".dist-info/" not in name} == ours


def test_wheel_asks_for_what_pyproject_says(wheel: ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("METADATA"))
    metadata = wheel.read(name).decode()

    assert f"\nVersion: {PROJECT['version']}\n" in metadata
    assert f"\nRequires-Python: {PROJECT['requires-python']}\n" in metadata
    assert metadata.count("\nRequires-Dist: ") == metadata.count("; extra == ") + len(PROJECT["dependencies"])


def test_wheel_has_the_command(wheel: ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("entry_points.txt"))

    assert "cachemesh = cachemesh.cli:main" in wheel.read(name).decode()


# Names


def test_public_names_are_those_of_the_contract_and_what_their_types_need() -> None:
    assert set(cachemesh.__all__) == {*CONTRACT.split(), *NEEDED_BESIDE}


@pytest.mark.parametrize("name", [*CONTRACT.split(), *NEEDED_BESIDE])
def test_public_name_can_be_imported(name: str) -> None:
    assert getattr(cachemesh, name) is not None


def test_public_classes_and_functions_are_described() -> None:
    """In the place of ruff's D102 and D103, which take every file for public."""
    assert sorted(set(undescribed())) == []


# What the papers say of each other


def test_dependencies_are_what_the_library_imports() -> None:
    """Neither an import that is installed by chance, nor a package that nobody uses."""
    declared = {re.split(r"[^\w-]", requirement)[0] for requirement in PROJECT["dependencies"]}

    assert imported_from_outside() == {IMPORTED_AS.get(name, name) for name in declared}


def test_changelog_begins_with_this_version() -> None:
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.MULTILINE)

    assert released[:1] == [PROJECT["version"]]


def test_installed_version_is_this_one() -> None:
    try:
        installed = version("cachemesh")
    except PackageNotFoundError:
        pytest.skip("run from a source tree that is not installed")

    assert installed == PROJECT["version"], "the version has changed: install again"


@pytest.mark.parametrize("name", ["demo", "tests", "quick start"])
def test_ci_runs_what_the_readme_says(name: str) -> None:
    bash = shutil.which("bash") or pytest.skip("needs bash")
    readme = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(rf"^<!-- ci: {name} -->\n+```\w*\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)

    printed = subprocess.run(  # noqa: S603 (our own script)
        [bash, ROOT / ".ci" / "run", "--print", name], capture_output=True, text=True, check=True, timeout=60
    ).stdout

    assert blocks == [printed]


def test_ci_has_no_test_command_of_its_own_for_the_first_run() -> None:
    script = (ROOT / ".ci" / "run").read_text("utf-8")

    assert 'readme_tests() { bash -euo pipefail -c "$(readme_block tests)"; }' in script.splitlines()


def files_of_the_package() -> list[Path]:
    return [
        path
        for path in (ROOT / "cachemesh").rglob("*")
        if path.is_file() and "__pycache__" not in path.relative_to(ROOT).parts
    ]


def undescribed() -> Iterator[str]:
    """The public classes, functions and methods that have no docstring, of their own or inherited."""
    for name in cachemesh.__all__:
        public = getattr(cachemesh, name)
        if getattr(public, "__module__", "").startswith("cachemesh.") and (
            inspect.isclass(public) or inspect.isfunction(public)
        ):
            if not inspect.getdoc(public):
                yield name
            yield from (f"{name}.{method}" for method in methods(public) if not inspect.getdoc(getattr(public, method)))


def methods(public: object) -> Iterator[str]:
    """The public methods and properties that cachemesh defines for a class; none of a function."""
    for base in inspect.getmro(public) if inspect.isclass(public) else ():
        if base.__module__.startswith("cachemesh."):
            for name, member in vars(base).items():
                if not name.startswith("_") and isinstance(
                    member, staticmethod | classmethod | property | FunctionType
                ):
                    yield name


def imported_from_outside() -> set[str]:
    """The packages that the library imports, without those that only its extras import."""
    for_extras = {
        ("cli.py",),
        ("store_cli",),
        ("demo",),
        ("testing",),
        ("simulation", "command.py"),
        ("simulation", "log", "command.py"),
        ("simulation", "report.py"),
        ("simulation", "table.py"),
        ("stores", "redis"),
        ("stores", "encryption.py"),
        ("auth", "http.py"),
        ("auth", "oauth.py"),
        ("auth", "storages", "keyring.py"),
        ("sources", "deadline.py"),
        ("sources", "own_clients.py"),
        ("sources", "watched.py"),
        ("sources", "websocket", "source.py"),
        ("sources", "websocket", "upgrade.py"),
    }
    outside = set()
    for path in files_of_the_package():
        inside = path.relative_to(ROOT / "cachemesh").parts
        if path.suffix != ".py" or any(inside[:depth] in for_extras for depth in (1, 2, 3)):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                outside |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                outside.add((node.module or "").partition(".")[0])
    return outside - sys.stdlib_module_names - {"cachemesh", "pydantic_core"}  # The latter is pydantic's own.
