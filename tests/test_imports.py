"""Names are imported when they are asked for, and nothing is loaded that is not needed."""

from __future__ import annotations

import ast
import importlib
import inspect
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

import cachemesh
import cachemesh.auth
import cachemesh.auth.storages
import cachemesh.testing

if TYPE_CHECKING:
    from types import ModuleType

ROOT: Final = Path(__file__).resolve().parent.parent

LAZY: Final = [cachemesh, cachemesh.auth, cachemesh.auth.storages, cachemesh.testing]

RESULTS_AND_LOOPS: Final = (
    "asyncio",
    "pydantic",
    "returns",
    "cachemesh.shell",
    "cachemesh.stores",
    "cachemesh.testing",
)
"""What the core can do without. What msgspec, rpds and typing_extensions import is their affair; these they do not."""


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_type_checkers_see_the_names_that_are_there(package: ModuleType) -> None:
    """The imports under TYPE_CHECKING, `__all__` and the table of homes say the same."""
    tree = ast.parse(inspect.getsource(package))
    (branch,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.name: imported(node.module or "", alias.name)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }

    assert sorted(seen) == sorted(package.__all__)
    assert {name: getattr(package, name) for name in package.__all__} == seen


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_a_name_is_looked_up_once(package: ModuleType) -> None:
    for name in package.__all__:
        assert getattr(package, name) is vars(package)[name]


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_a_name_that_is_not_there_is_an_attribute_error(package: ModuleType) -> None:
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        _ = package.nothing


def test_importing_the_core_loads_nothing_of_the_shell() -> None:
    assert printed(f"import sys, cachemesh.core; print([m for m in {RESULTS_AND_LOOPS} if m in sys.modules])") == "[]\n"


def test_names_are_listed_before_they_are_loaded() -> None:
    program = "import sys, cachemesh; print('Cache' in dir(cachemesh), 'cachemesh.shell' in sys.modules)"

    assert printed(program) == "True False\n"


@pytest.mark.parametrize(
    "program",
    [
        "import cachemesh; print(cachemesh.Cache)",
        "from cachemesh import *; print(Cache)",
        "from cachemesh import Cache; print(Cache)",
        "from cachemesh import CachePolicy, Cache; print(Cache)",
    ],
)
def test_a_public_name_is_there_however_it_is_imported(program: str) -> None:
    assert printed(program) == "<class 'cachemesh.shell.cache.Cache'>\n"


WITHOUT_TEST_TOOLS: Final = """
import sys
sys.modules.update(hypothesis=None, pytest=None)  # Whoever imports them gets a ModuleNotFoundError.
"""


def test_clock_and_loop_want_neither_pytest_nor_hypothesis() -> None:
    program = """
import asyncio
from cachemesh.testing import Deadlock, VirtualClock, VirtualLoop, run
clock = VirtualClock()
run(asyncio.sleep(3600), clock=clock)
print(clock(), VirtualLoop.__name__, Deadlock.__name__, "cachemesh.shell" in sys.modules)
"""

    assert printed(WITHOUT_TEST_TOOLS + program) == "3600.0 VirtualLoop Deadlock False\n"


@pytest.mark.parametrize("name", ["SharedStoreContract", "StoreContract", "policy_machine", "strategies"])
def test_what_wants_a_test_tool_says_so_when_it_is_asked_for(name: str) -> None:
    program = f"""
import cachemesh.testing
try:
    cachemesh.testing.{name}
except ModuleNotFoundError as error:
    print(error.name)
"""

    assert printed(WITHOUT_TEST_TOOLS + program) in {"hypothesis\n", "pytest\n"}


@pytest.mark.parametrize(
    ("missing", "module", "name"),
    [
        ("redis", "cachemesh.stores", "RedisStore"),
        ("redis", "cachemesh.stores.redis", "RedisStore"),
        ("cryptography", "cachemesh.stores.encryption", "PartitionCipher"),
    ],
)
def test_what_wants_an_extra_names_it(missing: str, module: str, name: str) -> None:
    extra = {"redis": "redis", "cryptography": "encryption"}[missing]
    program = f"""
import sys
sys.modules[{missing!r}] = None
from cachemesh.stores import MemoryStore, SqliteStore
try:
    from {module} import {name}
except ImportError as error:
    print(error)
"""

    assert printed(program).endswith(f" needs the extra `{extra}`: pip install 'cachemesh[{extra}]'\n")


def test_strategies_are_a_module_however_they_are_imported() -> None:
    assert printed("import cachemesh.testing; print(cachemesh.testing.strategies.__name__)") == (
        "cachemesh.testing.strategies\n"
    )
    assert printed("from cachemesh.testing import strategies; print(strategies.__name__)") == (
        "cachemesh.testing.strategies\n"
    )


def imported(module: str, name: str) -> object:
    """What `from module import name` gives, without the help of a lazy `module`."""
    try:
        return importlib.import_module(f"{module}.{name}")
    except ModuleNotFoundError:
        return vars(importlib.import_module(module))[name]


def printed(program: str) -> str:
    """What `program` prints in an interpreter of its own."""
    command = [sys.executable, "-W", "error", "-c", program]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout  # noqa: S603 (our own program)
