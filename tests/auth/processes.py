"""Processes that share a token, as children of a test."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from cachemesh.auth import Token
from tests.auth.storage_children import storage_at

if TYPE_CHECKING:
    from tests.auth.servers import OAuthServer

CHILDREN = Path(__file__).with_name("token_children.py")
ROOT = CHILDREN.parents[2]


def begun(role: str, face: str, kind: str, folder: Path, *arguments: object) -> subprocess.Popen[str]:
    return subprocess.Popen(  # noqa: S603 (this interpreter, on our own file)
        [sys.executable, CHILDREN, role, face, kind, folder, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def together(*children: subprocess.Popen[str], timeout_s: float = 60) -> list[Counter[str]]:
    """Let them begin when all are ready; what each has seen."""
    seen = []
    try:
        for child in children:
            assert child.stdout is not None
            assert child.stdout.readline() == "ready\n"
        for child in children:
            assert child.stdin is not None
            child.stdin.write("\n")
            child.stdin.flush()
        for child in children:
            output, _ = child.communicate(timeout=timeout_s)
            assert child.returncode == 0
            seen.append(Counter(json.loads(output)))
    finally:
        for child in children:
            if child.poll() is None:
                child.kill()
                child.communicate()
    return seen


def signed_in(server: OAuthServer, kind: str, folder: Path, **settings: float) -> Token:
    """A token of the server, in the storage."""
    token = Token.from_response(server.sign_in(**settings), time.time()).unwrap()
    storage = storage_at(kind, folder)
    assert storage.swap(storage.read().version, token) is not None
    return token


def rotated_for(server: OAuthServer, kind: str, folder: Path, seconds: float) -> tuple[int, Counter[str]]:
    """Two processes on a token that is to be refreshed all the time: how many refreshes there were, what they saw.

    One of each face. A refresh token that is used twice signs both out, as far as the server is concerned.
    """
    server.lifetime_s = 0.02
    server.grace_s = 60.0
    signed_in(server, kind, folder)
    children = [begun("use_on", face, kind, folder, server.url, seconds) for face in ("async", "sync")]
    one, other = together(*children, timeout_s=seconds + 60)
    return server.refreshes, one + other
