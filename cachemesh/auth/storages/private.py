"""Files for nobody but their owner: what is looked at before one is used, and how one is written.

Whoever may write in a folder may put another file in the place of ours, and
whoever may read the file has the token. So a folder that others may write in, a
link, somebody else's file and one that others may read are refused, not
mended: the token may be known already. `root` may do anything anyway, and is trusted.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING, Final

from cachemesh.auth.storages.errors import TokenStorageError, UnreadableTokenError, UnsafeStorageError
from cachemesh.stores.sqlite.file import make_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MOST_BYTES: Final = 1 << 20
"""A file that is longer holds no token of ours."""

ROOT: Final = 0
OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
OTHERS_WRITE: Final = stat.S_IWGRP | stat.S_IWOTH

HAS_OWNERS: Final = hasattr(os, "geteuid")
"""Elsewhere (Windows) a file has the rights of its folder, and a user's own folders are nobody else's."""

NO_LINKS: Final = getattr(os, "O_NOFOLLOW", 0)


@contextlib.contextmanager
def telling(what: str) -> Iterator[None]:
    """Errors of the system as a `TokenStorageError` that says `what` failed, without a path in it."""
    try:
        yield
    except (OSError, ValueError) as error:
        number = "" if not isinstance(error, OSError) or error.strerror is None else f" ({error.strerror})"
        msg = f"{what}: {type(error).__name__}{number}"
        raise TokenStorageError(msg) from None


def prepare_folder(folder: Path) -> None:
    """Make it where it is missing, for nobody else. UnsafeStorageError where others have a say in what lies in it."""
    make_folder(folder)
    if not HAS_OWNERS:
        return
    trusted = {os.geteuid(), ROOT}
    found = folder.stat()
    if found.st_uid not in trusted or folder.lstat().st_uid not in trusted:
        msg = "the folder, or the link that leads to it, is somebody else's"
        raise UnsafeStorageError(msg)
    if found.st_mode & OTHERS_WRITE and not found.st_mode & stat.S_ISVTX:
        msg = "others may write in the folder; take that right from them (chmod go-w)"
        raise UnsafeStorageError(msg)


def check_file(found: os.stat_result) -> None:
    """UnsafeStorageError where the file that was opened is not ours alone."""
    if not stat.S_ISREG(found.st_mode):
        msg = "there is something that is no plain file (a link, a pipe, a folder)"
        raise UnsafeStorageError(msg)
    if not HAS_OWNERS:
        return
    if found.st_uid != os.geteuid():
        msg = "the file is somebody else's"
        raise UnsafeStorageError(msg)
    if found.st_mode & OTHERS:
        msg = "others have rights on the file; end its tokens at their issuer, then remove it"
        raise UnsafeStorageError(msg)


def check_place(path: Path) -> bool:
    """Whether there is a file at `path`. UnsafeStorageError where it is not ours alone."""
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    check_file(found)
    return True


def read_private(path: Path) -> bytes | None:
    """What is in the file; None where there is none. What was checked is what is read: it is opened before."""
    if not check_place(path):
        return None
    try:
        descriptor = os.open(path, os.O_RDONLY | NO_LINKS | getattr(os, "O_NONBLOCK", 0))
    except FileNotFoundError:
        return None
    with open(descriptor, "rb") as file:  # noqa: PTH123 (a descriptor)
        check_file(os.fstat(descriptor))
        content = file.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        msg = "the file is too long for a token"
        raise UnreadableTokenError(msg)
    return content


def write_private(path: Path, content: bytes) -> None:
    """Put `content` in the place of what is in the file: all of it or nothing, and on the disk when this returns.

    Nobody else writes meanwhile, so what a crashed writer has left is removed first.
    """
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_LINKS, 0o600)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 (a descriptor)
            if HAS_OWNERS:
                os.fchmod(descriptor, 0o600)  # A strict umask may have left us fewer rights than that.
            file.write(content)
            file.flush()
            os.fsync(descriptor)
        draft.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # The next writer removes it.
            draft.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """See that the names in `folder` are on the disk. Windows does that by itself, and opens no folders."""
    if not HAS_OWNERS:
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
