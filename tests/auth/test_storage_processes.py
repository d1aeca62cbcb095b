"""Storages of tokens that processes share: who writes, who may refresh, and what is left of one that is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cachemesh.auth import Token
from cachemesh.auth.storages.contract import assert_free, waited_for
from tests.auth.storage_children import KINDS, storage_at

CHILDREN = Path(__file__).with_name("storage_children.py")
ROOT = CHILDREN.parents[2]
CANARY = Token(access_token="canary-access", refresh_token="canary-refresh")


def begun(role: str, kind: str, folder: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 (this interpreter, on our own file)
        [sys.executable, CHILDREN, role, kind, folder, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(*children: subprocess.Popen[str]) -> None:
    for child in children:
        child.communicate(timeout=60)
        assert child.returncode == 0


def killed(child: subprocess.Popen[str], number: int = signal.SIGKILL) -> None:
    child.send_signal(number)
    if number == signal.SIGKILL:
        child.communicate(timeout=30)


@pytest.mark.parametrize("kind", KINDS)
def test_of_four_processes_none_overwrites_what_another_has_written(kind: str, tmp_path: Path) -> None:
    """Each adds one, 15 times, by compare-and-set: a lost update would be a lost count."""
    ended(*(begun("count_up", kind, tmp_path, number, 15) for number in range(4)))

    token = storage_at(kind, tmp_path).read().token
    assert token is not None
    assert token.access_token == "60"


@pytest.mark.parametrize("kind", KINDS)
def test_of_four_processes_one_at_a_time_has_the_right_to_refresh(kind: str, tmp_path: Path) -> None:
    (tmp_path / "count").write_text("0")
    ended(*(begun("count_locked", kind, tmp_path, tmp_path, 10) for _ in range(4)))

    assert (tmp_path / "count").read_text() == "40"
    assert not list(tmp_path.glob("*-refresh-*"))


@pytest.mark.parametrize("kind", KINDS)
def test_tk6_the_right_to_refresh_ends_with_its_process(kind: str, tmp_path: Path) -> None:
    """At once, not when its time is up: that is an hour away."""
    child = begun("hold", kind, tmp_path, 3600)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    storage = storage_at(kind, tmp_path)
    assert storage.try_lock(1) is None

    killed(child)
    assert_free(storage)
    assert not list(tmp_path.glob("*-refresh-*"))


@pytest.mark.parametrize("kind", KINDS)
def test_the_right_of_a_stopped_process_ends_when_its_time_is_up(kind: str, tmp_path: Path) -> None:
    child = begun("hold", kind, tmp_path, 0.5)
    assert child.stdout is not None
    assert child.stdout.readline() == "held\n"
    killed(child, signal.SIGSTOP)
    try:
        waited_for(lambda: storage_at(kind, tmp_path).try_lock(60))()
    finally:
        killed(child)


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_tk6_whoever_is_killed_while_writing_leaves_a_whole_token(kind: str, tmp_path: Path) -> None:
    """Four times; what is read is always something that was written, and can be written over."""
    storage = storage_at(kind, tmp_path)
    for round_ in range(4):
        child = begun("write_for_ever", kind, tmp_path)
        assert child.stdout is not None
        assert child.stdout.readline() == "begun\n"
        time.sleep(0.008 * (round_ + 1))
        killed(child)

        token = storage.read().token
        assert token is None or token.refresh_token == "r" * 20_000
        assert storage.swap(storage.read().version, token) is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_the_child_of_a_fork_goes_on_with_the_storage(kind: str, tmp_path: Path) -> None:
    """While another thread writes. The child's copy of the parent's right is nobody's to give back."""
    storage = storage_at(kind, tmp_path)
    give_back = storage.try_lock(60)
    assert give_back is not None
    stop = threading.Event()

    def write() -> None:
        while not stop.wait(0.002):
            storage.swap(storage.read().version, CANARY)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        for _ in range(5):
            child = os.fork()
            if child == 0:  # pragma: no cover (it ends here)
                code = 1
                try:
                    give_back()
                    while storage.swap(storage.read().version, None) is None:
                        pass
                    code = 0 if storage.try_lock(60) is None else 2
                finally:
                    os._exit(code)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    finally:
        stop.set()
        thread.join()
    assert storage.try_lock(60) is None
    give_back()
    assert_free(storage)
