"""Records as they lie in a row: an envelope, and beside it the generation that it must have."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from cachemesh.stores.envelope import DamagedEnvelopeError, LockedEnvelopeError, opened, opened_for

if TYPE_CHECKING:
    from cachemesh.core.scopes import Owner
    from cachemesh.shell.ports import StoredEntry
    from cachemesh.stores.envelope import Cipher


def record_of(  # noqa: PLR0913, PLR0917 (where it lay, and what opens it)
    envelope: Any,  # noqa: ANN401 (whatever a damaged row has)
    generation: Any,  # noqa: ANN401 (as above)
    namespace: str,
    owner: Owner,
    key: str,
    cipher: Cipher | None,
) -> StoredEntry:
    """The entry in a record that was found under (owner, key). `DamagedEnvelopeError` where it is another one's."""
    if type(envelope) is not bytes:
        msg = "of another type"
        raise DamagedEnvelopeError(msg)
    entry = opened_for(envelope, namespace, owner, key, cipher)
    if entry.generation != generation:
        msg = "of another generation"
        raise DamagedEnvelopeError(msg)
    return entry


def some_record_of(envelope: Any, generation: Any, namespace: str, cipher: Cipher | None) -> StoredEntry | None:  # noqa: ANN401 (as above)
    """The entry in a record, whosever it is; None where it is damaged, or there is no key for it."""
    try:
        return any_record_of(envelope, generation, namespace, cipher)
    except LockedEnvelopeError:
        return None


def any_record_of(envelope: Any, generation: Any, namespace: str, cipher: Cipher | None) -> StoredEntry | None:  # noqa: ANN401 (as above)
    """As `some_record_of`. LockedEnvelopeError where there is no key for it now: it need not be damaged."""
    if type(envelope) is not bytes:
        return None
    try:
        entry = opened(envelope, namespace, cipher)
    except LockedEnvelopeError:
        raise
    except DamagedEnvelopeError:
        return None
    return entry if entry.generation == generation else None
