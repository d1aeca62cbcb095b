"""The fixtures for pytest: there when they are asked for, and otherwise not to be noticed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).resolve().parent.parent.parent

WITH_PLUGIN: Final = ("-p", "cachemesh.testing.plugin")


def passed(folder: Path, *options: str, site: Path | None = None, **files: str) -> str:
    """What pytest says of `files`, which must pass, in a process of its own with no settings."""
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text, "utf-8")
    paths = (ROOT,) if site is None else (site, ROOT)
    alone = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"} if site is None else {}
    run = subprocess.run(  # noqa: S603 (our own files)
        [sys.executable, "-m", "pytest", "-q", "-W", "error", *options, "."],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(map(str, paths)), **alone},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


USES_ALL: Final = """
from returns.pipeline import is_successful
from returns.result import Success
from cachemesh import Cache, SyncCache
from cachemesh.testing import assert_one_flight

def test_async(cache, async_cache, virtual_run, virtual_clock, scripted_origin):
    assert cache is async_cache and isinstance(cache, Cache)
    scripted_origin.takes = 60
    begun_at = virtual_clock()
    assert virtual_run(cache.get("k", scripted_origin.fetcher("k"))) == Success("k #1")
    assert virtual_clock() == begun_at + 60
    assert_one_flight(scripted_origin)

def test_sync(sync_cache, scripted_origin, virtual_clock):
    assert isinstance(sync_cache, SyncCache)
    for _ in range(2):
        sync_cache.get("k", scripted_origin.sync_fetcher("k"), ttl=10)
        virtual_clock.advance(10)
    assert_one_flight(scripted_origin, "k", times=2)

def test_each_test_has_its_own(sync_cache, scripted_origin):
    assert scripted_origin.times() == 0
    assert not is_successful(sync_cache.peek("k"))
"""


def test_all_fixtures_work(tmp_path: Path) -> None:
    assert "3 passed" in passed(tmp_path, *WITH_PLUGIN, test_it=USES_ALL)


@pytest.mark.parametrize("beside", [(), WITH_PLUGIN], ids=["found", "named as well"])
def test_pytest_finds_them_where_cachemesh_is_installed(tmp_path: Path, beside: tuple[str, ...]) -> None:
    """By the entry point that pyproject.toml declares; named on the command line besides, it is loaded once."""
    import tomllib  # noqa: PLC0415 (for this one alone)

    declared = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]["pytest11"]
    installed = tmp_path / "site" / "made_up-1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: made-up\nVersion: 1.0\n", "utf-8")
    lines = "".join(f"{name} = {module}\n" for name, module in declared.items())
    (installed / "entry_points.txt").write_text(f"[pytest11]\n{lines}", "utf-8")
    folder = tmp_path / "tests"
    folder.mkdir()

    assert "3 passed" in passed(folder, *beside, site=tmp_path / "site", test_it=USES_ALL)


def test_pytests_own_cache_stays_where_nobody_speaks_of_cachemesh(tmp_path: Path) -> None:
    said = passed(
        tmp_path,
        *WITH_PLUGIN,
        test_pytests="def test_it(cache):\n    cache.set('a/b', 1)\n    assert cache.get('a/b', None) == 1\n",
        test_by_import="import cachemesh\ndef test_it(cache):\n    assert isinstance(cache, cachemesh.Cache)\n",
        test_by_name="from cachemesh import Cache\ndef test_it(cache):\n    assert type(cache) is Cache\n",
        test_by_fixture="def test_it(cache, virtual_clock):\n    assert hasattr(cache, 'invalidate')\n",
        test_proxy="class Proxy:\n    def __getattribute__(self, name):\n        raise RuntimeError('no context')\n"
        "current_app = Proxy()\ndef test_it(cache):\n    assert cache.get('none', 3) == 3\n",
        test_class="class TestIt:\n    def test_it(self, cache):\n        assert cache.get('none', 3) == 3\n",
    )

    assert "6 passed" in said


def test_it_is_cachemeshs_where_pytest_has_none(tmp_path: Path) -> None:
    test = "def test_it(cache):\n    assert hasattr(cache, 'invalidate')\n"

    assert "1 passed" in passed(tmp_path, *WITH_PLUGIN, "-p", "no:cacheprovider", test_it=test)


def test_fixtures_of_ones_own_by_these_names_count(tmp_path: Path) -> None:
    said = passed(
        tmp_path,
        *WITH_PLUGIN,
        conftest="import pytest\n@pytest.fixture\ndef cache():\n    return 'mine'\n"
        "@pytest.fixture\ndef virtual_clock():\n    return lambda: 5.0\n",
        test_it="import cachemesh\ndef test_it(cache, sync_cache):\n    assert cache == 'mine'\n"
        "    sync_cache.put('k', 1, ttl=1)\n    assert sync_cache.peek('k').unwrap() == 1\n",
    )

    assert "1 passed" in said


def test_it_loads_nothing_before_a_test_asks(tmp_path: Path) -> None:
    test = (
        "import sys\n"
        "def test_it():\n"
        "    mine = [name for name in sys.modules if name.partition('.')[0] == 'cachemesh']\n"
        "    assert sorted(mine) == ['cachemesh', 'cachemesh._lazy', 'cachemesh.testing', 'cachemesh.testing.plugin']\n"
        "    assert not {'hypothesis', 'pydantic', 'returns', 'msgspec', 'rpds'} & set(sys.modules)\n"
    )

    said = passed(tmp_path, *WITH_PLUGIN, test_it=test)

    assert "1 passed" in said


def test_a_cache_with_a_fetch_under_way_is_closed_in_silence(tmp_path: Path) -> None:
    test = (
        "import asyncio\n"
        "def test_it(cache, scripted_origin, virtual_run):\n"
        "    async def leave():\n"
        "        scripted_origin.hold()\n"
        "        call = asyncio.create_task(cache.get('k', scripted_origin.fetcher('k')))\n"
        "        await scripted_origin.reached(1)\n"
        "    virtual_run(leave())\n"
    )

    assert "1 passed" in passed(tmp_path, *WITH_PLUGIN, test_it=test)
