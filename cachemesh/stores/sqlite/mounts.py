"""Whether a file is on a file system that other machines share: the index of a write-ahead log is in shared memory."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

MOUNTS: Final = Path("/proc/self/mounts")

NETWORK: Final = frozenset(
    (
        *("9p", "afs", "beegfs", "ceph", "cifs", "coda", "gfs", "gfs2", "glusterfs", "gpfs", "lustre", "ncpfs", "nfs"),
        *("nfs4", "ocfs2", "smb", "smb2", "smb3", "smbfs", "vboxsf", "fuse.glusterfs", "fuse.s3fs", "fuse.sshfs"),
    )
)


def is_on_network(path: Path, mounts: Path = MOUNTS) -> bool:
    """False where the system does not tell."""
    try:
        lines = mounts.read_text("utf-8", "surrogateescape").splitlines()
    except OSError:
        return False
    place = os.path.realpath(path)
    kind, longest = "", -1
    for line in lines:
        fields = line.split(" ")
        if len(fields) >= 3:  # noqa: PLR2004 (device, where, type)
            where = unescaped(fields[1])
            is_above = place == where or place.startswith(where.rstrip("/") + "/")
            if is_above and len(where) >= longest:
                kind, longest = fields[2], len(where)
    return kind in NETWORK


def unescaped(text: str) -> str:
    """A field of the table, in which blanks and the like are octal."""
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        text = text.replace(code, character)
    return text
