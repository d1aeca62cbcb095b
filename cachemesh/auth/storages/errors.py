"""What the storages of tokens raise. A keeper answers it as `TokenStorageFailed`; no text quotes a token."""

from __future__ import annotations


class TokenStorageError(Exception):
    """A storage cannot be used, or not now: a disk, a lock, a keyring without a backend. The text says why."""


class UnreadableTokenError(TokenStorageError):
    """What is stored is not what we wrote: damaged, cut off, of another program or version.

    It is not taken for "signed out". The storage's `discard` makes room again.
    """


class UnsafeStorageError(TokenStorageError):
    """Others could read the tokens, or choose them: see `FileTokenStorage` for what is looked at."""
