"""`cachemesh store` over files and servers: each command, what it shows of hostile and of private keys, exit codes."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import sqlite3
import stat
import subprocess
import sys
import time
from base64 import b64decode
from typing import TYPE_CHECKING, Any, Final, Protocol

import pytest
from msgspec.structs import replace

from cachemesh.cli import main
from cachemesh.core.scopes import GLOBAL_OWNER, CacheScope
from cachemesh.shell.ports import Encoded, StoredEntry
from cachemesh.store_cli import command
from cachemesh.stores.redis import RedisStore
from cachemesh.stores.report import Finding, Level
from cachemesh.stores.sqlite import SqliteStore
from tests.stores.servers import Server, free_port

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from cachemesh.core.scopes import Owner
    from cachemesh.stores.envelope import Cipher
    from cachemesh.stores.report import BrowsableStore
    from tests.stores.servers import Cluster

ADA: Final[Owner] = (CacheScope.USER, "ada")
ADAS_SESSION: Final[Owner] = (CacheScope.SESSION, "ada")
SESSION: Final[Owner] = (CacheScope.SESSION, None)

HOSTILE: Final = [
    "\x1b]0;owned\x07\x1b[2J",
    "two\nlines\r\t",
    "[bold red]markup[/] [link=https://example.org]x[/link]",
    "\ud800half",
    "\u202eright to left\u2066",
    "\x9b31m C1",
    "x" * 100_000,
    ":skull: -- --help",
    "",
    "back\\slash \\x1b",
]


class Place(Protocol):
    """Where a store is."""

    target: str

    def make(self, namespace: str = "cachemesh", cipher: Cipher | None = None) -> BrowsableStore:
        """A store there."""


class AFile:
    def __init__(self, target: str) -> None:
        self.target = target

    def make(self, namespace: str = "cachemesh", cipher: Cipher | None = None) -> BrowsableStore:
        return SqliteStore(self.target, namespace=namespace, cipher=cipher)


class AServer:
    def __init__(self, target: str) -> None:
        self.target = target

    def make(self, namespace: str = "cachemesh", cipher: Cipher | None = None) -> BrowsableStore:
        return RedisStore(self.target, namespace=namespace, cipher=cipher, timeout=5.0)


@pytest.fixture(params=["file", "server"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "file":
        return AFile(str(tmp_path / "cache.db"))
    return AServer(request.getfixturevalue("server").url)


@pytest.fixture
def file(tmp_path: Path) -> AFile:
    return AFile(str(tmp_path / "cache.db"))


def entry(key: str = "k", value: object = 1, owner: Owner = GLOBAL_OWNER, **fields: Any) -> StoredEntry:
    now = time.time()
    payload = value if isinstance(value, Encoded) else Encoded(json.dumps(value, separators=(",", ":")).encode())
    made = StoredEntry(owner, key, payload, False, now - 100.0, 300.0, now + 200.0)  # noqa: FBT003 (a success)
    return replace(made, **fields)


def fill(place: Place, *entries: StoredEntry, namespace: str = "cachemesh", cipher: Cipher | None = None) -> None:
    async def writing() -> None:
        store = place.make(namespace, cipher)
        try:
            for each in entries:
                await store.write(each)
            await store.flush()
        finally:
            await store.aclose()

    asyncio.run(writing())


def content(place: Place, namespace: str = "cachemesh", cipher: Cipher | None = None) -> dict[Any, StoredEntry]:
    """What is there, but for its generations."""

    async def reading() -> dict[Any, StoredEntry]:
        store = place.make(namespace, cipher)
        try:
            return {(each.owner, each.key): replace(each, generation=0) async for each in store.scan()}
        finally:
            await store.aclose()

    return asyncio.run(reading())


def by_place(*entries: StoredEntry) -> dict[Any, StoredEntry]:
    return {(each.owner, each.key): each for each in entries}


class Done:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def lines(self) -> list[Any]:
        """The lines of JSON."""
        return [json.loads(line) for line in self.out.splitlines()]

    @property
    def document(self) -> Any:
        (document,) = self.lines
        return document


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """Call `main` as the shell would."""

    def running(*arguments: str, stdin: bytes = b"") -> Done:
        capsys.readouterr()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with pytest.raises(SystemExit) as ended:
            main(["store", *arguments])
        out, err = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return Done(ended.value.code, out, err)

    return running


EVERYBODYS: Final = ("a", "ab", "b")


@pytest.fixture
def some(place: Place) -> dict[Any, StoredEntry]:
    """Entries of all scopes, in the place."""
    entries = [
        entry("a", {"name": "one"}, tags=("t", "u"), serve_stale_s=60.0, validator='W/"1"'),
        entry("ab", "two", ttl_s=None, expires_at=None),
        entry("b", Encoded(b'{"code":404}', "Error", 3), expires_at=time.time() - 1.0, is_failure=True),
        entry("secret-key", "adas", ADA, tags=("secret-tag",)),
        entry("secret-key", "adas session", ADAS_SESSION),
        entry("secret-session", "a session", SESSION),
    ]
    fill(place, *entries)
    fill(place, entry("elsewhere"), namespace="other")
    return by_place(*entries)


# ls


def test_ls_shows_a_table(place: Place, some: Mapping[Any, StoredEntry], run: Callable[..., Done]) -> None:
    done = run("ls", place.target)

    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[0].split() == [
        "key",
        "scope",
        "user",
        "size",
        "age",
        "expires",
        "in",
        "tags",
        "schema",
    ]
    assert done.out.splitlines()[-1] == f"{len(some)} entries"
    (row,) = (line for line in done.out.splitlines() if line.startswith("ab "))
    assert "never" in row
    assert "global" in row
    (row,) = (line for line in done.out.splitlines() if line.startswith("b "))
    assert "expired" in row
    assert "failure" in row
    assert "elsewhere" not in done.out


def test_ls_json_is_a_line_an_entry(place: Place, some: Mapping[Any, StoredEntry], run: Callable[..., Done]) -> None:
    done = run("ls", "--json", "--clear", place.target)

    rows = {(row["scope"], row["user"], row["key"]): row for row in done.lines}
    assert done.code == 0
    assert set(rows) == {(owner[0].value, owner[1], key) for owner, key in some}
    a = some[GLOBAL_OWNER, "a"]
    assert rows["global", None, "a"] == {
        "key": "a",
        "scope": "global",
        "user": None,
        "is_hashed": False,
        "is_encrypted": False,
        "is_failure": False,
        "size_bytes": len(a.value.payload),
        "created_at": a.created_at,
        "expires_at": a.expires_at,
        "tags": ["t", "u"],
        "schema": "",
        "version": 0,
    }
    assert (rows["global", None, "b"]["schema"], rows["global", None, "b"]["version"]) == ("Error", 3)


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        (["--scope", "global"], {"a", "ab", "b"}),
        (["--prefix", "a"], {"a", "ab"}),
        (["--user", "ada"], {"secret-key"}),
        (["--scope", "session", "--user", "ada"], {"secret-key"}),
        (["--scope", "session"], {"secret-key", "secret-session"}),
        (["--namespace", "other"], {"elsewhere"}),
    ],
)
@pytest.mark.usefixtures("some")
def test_ls_takes_choices(place: Place, run: Callable[..., Done], options: list[str], keys: set[str]) -> None:
    done = run("ls", "--json", "--clear", place.target, *options)

    assert {row["key"] for row in done.lines} == keys
    assert done.code == 0


def test_ls_keeps_to_its_limit(place: Place, some: Mapping[Any, StoredEntry], run: Callable[..., Done]) -> None:
    assert run("ls", place.target, "--limit", "2").out.splitlines()[-1] == f"2 of {len(some)} entries"
    assert len(run("ls", place.target, "--json", "--limit", "2").lines) == 2


@pytest.mark.parametrize("options", [["--user", "nobody"], ["--prefix", "zz"], ["--namespace", "nobodys"]])
@pytest.mark.usefixtures("some")
def test_ls_that_finds_nothing_ends_with_1(place: Place, run: Callable[..., Done], options: list[str]) -> None:
    assert run("ls", place.target, *options).code == 1
    done = run("ls", "--json", place.target, *options)
    assert (done.code, done.out) == (1, "")


# Private and hostile keys


@pytest.mark.parametrize("options", [[], ["--json"]])
@pytest.mark.usefixtures("some")
def test_what_is_of_users_is_shown_as_hashes(place: Place, run: Callable[..., Done], options: list[str]) -> None:
    listed = run("ls", place.target, *options).out
    shown = run("show", place.target, "secret-key", "--user", "ada", *options)

    for word in ("secret", "ada"):
        assert word not in listed
    assert "secret" not in shown.out
    assert "user#" in shown.out
    assert "adas session" in shown.out, "values are what show is for"
    assert "secret-key" in run("ls", place.target, "--clear", *options).out
    assert "ada" in run("show", place.target, "secret-key", "--user", "ada", "--clear", *options).out


@pytest.mark.parametrize("owner", [GLOBAL_OWNER, (CacheScope.USER, HOSTILE[0])])
def test_hostile_keys_do_nothing_to_a_terminal(place: Place, run: Callable[..., Done], owner: Owner) -> None:
    fill(place, *(entry(key, payload(key[:100], key), owner, tags=(key[:100],)) for key in HOSTILE))

    table = run("ls", place.target, "--clear", "--limit", "100")
    listed = run("ls", place.target, "--clear", "--json")
    exported = run("export", place.target, "--clear")

    assert (table.code, listed.code, exported.code) == (0, 0, 0)
    is_harmless(table.out)
    assert max(map(len, table.out.splitlines())) <= 170
    assert table.out.splitlines()[-1] == f"{len(HOSTILE)} entries"
    for literal in (r"\x1b]0;owned\x07", r"two\nlines\r\t", r"\ud800half", r"\u202eright", r"\x9b31m", r"back\\slash"):
        assert literal in table.out
    assert "[bold red]markup[/]" in table.out, "markup is text"
    assert listed.out.isascii()
    is_harmless(listed.out)
    assert {text_of(row["key"]) for row in listed.lines} == set(HOSTILE)
    assert len(exported.lines) == 1 + len(HOSTILE)


def payload(schema: str, value: str) -> Encoded:
    return Encoded(json.dumps(value, ensure_ascii=True).encode(), schema)


@pytest.mark.parametrize("key", [key for key in HOSTILE if "\ud800" not in key])
def test_hostile_values_do_nothing_to_a_terminal(place: Place, run: Callable[..., Done], key: str) -> None:
    """Written as they are, not as escapes."""
    fill(place, entry("-k", value=Encoded(json.dumps({key: key}, ensure_ascii=False).encode(), key)))

    done = run("show", place.target, "--full", "--", "-k")
    machine = run("show", place.target, "--full", "--json", "--", "-k")

    is_harmless(done.out)
    assert done.code == 0
    assert machine.out.isascii()
    assert machine.document["value"] == {key: key}
    _, _, value = done.out.partition("\n{")
    assert json.loads("{" + value) == {key: key}, "it is JSON still"


def test_a_value_that_is_no_json_is_shown_as_base64(place: Place, run: Callable[..., Done]) -> None:
    fill(place, entry("k", value=Encoded(b"\xff\x1b[2J")), entry("deep", value=Encoded(b"[" * 5_000 + b"]" * 5_000)))

    done = run("show", place.target, "k")
    is_harmless(done.out)
    assert "base64: /xtbMko=" in done.out
    assert run("show", place.target, "k", "--json").document["value_base64"] == "/xtbMko="
    assert run("show", place.target, "deep", "--json").document["value_begins"].startswith("base64: W1tb")


def is_harmless(text: str) -> None:
    assert all(char.isprintable() or char == "\n" for char in text)


def text_of(value: Any) -> str:
    return value if isinstance(value, str) else b64decode(value["base64"]).decode("utf-8", "surrogatepass")


# show


@pytest.mark.usefixtures("some")
def test_show_shows_an_entry_with_its_value(place: Place, run: Callable[..., Done]) -> None:
    done = run("show", place.target, "a")

    assert done.code == 0
    head, _, value = done.out.partition("\n{")
    names = [line[:16].strip() for line in head.splitlines()]
    assert {"key", "scope", "size", "age", "expires in", "tags", "schema", "holds"} <= {
        name.split("  ")[0] for name in names
    }
    assert json.loads("{" + value) == {"name": "one"}
    document = run("show", place.target, "a", "--json").document
    assert document["value"] == {"name": "one"}
    assert document["serve_stale_s"] == 60.0


@pytest.mark.parametrize(
    ("options", "values"),
    [
        (["secret-key", "--user", "ada"], {"adas", "adas session"}),
        (["secret-key", "--user", "ada", "--scope", "user"], {"adas"}),
        (["secret-session", "--scope", "session"], {"a session"}),
        (["ab", "--scope", "global"], {"two"}),
    ],
)
@pytest.mark.usefixtures("some")
def test_show_is_of_an_owner(place: Place, run: Callable[..., Done], options: list[str], values: set[str]) -> None:
    done = run("show", place.target, "--json", *options)

    assert {row["value"] for row in done.lines} == values
    assert done.code == 0


@pytest.mark.parametrize(
    ("options", "code"),
    [
        (["secret-key"], 1),
        (["a", "--user", "ada"], 1),
        (["none"], 1),
        (["secret-key", "--scope", "user"], 2),
        (["a", "--scope", "global", "--user", "ada"], 2),
        ([], 2),
    ],
)
@pytest.mark.usefixtures("some")
def test_show_that_finds_nothing(place: Place, run: Callable[..., Done], options: list[str], code: int) -> None:
    """Not either what is another owner's."""
    done = run("show", place.target, *options)

    assert (done.code, done.out) == (code, "")
    assert "adas" not in done.err


def test_show_cuts_long_values_unless_they_are_wanted(place: Place, run: Callable[..., Done]) -> None:
    fill(place, entry("k", "x" * 50_000))

    assert len(run("show", place.target, "k").out) < 3_000
    assert "more characters; --full shows them" in run("show", place.target, "k").out
    assert len(run("show", place.target, "k", "--full").out) > 50_000
    cut = run("show", place.target, "k", "--json").document
    assert "value" not in cut
    assert cut["value_begins"] == '"' + "x" * 1_999
    assert run("show", place.target, "k", "--json", "--full").document["value"] == "x" * 50_000


# rm


@pytest.mark.parametrize(
    ("options", "removed"),
    [
        (["a"], {(GLOBAL_OWNER, "a")}),
        (["secret-key", "--user", "ada"], {(ADA, "secret-key"), (ADAS_SESSION, "secret-key")}),
        (["secret-session", "--scope", "session"], {(SESSION, "secret-session")}),
        (["--prefix", "a"], {(GLOBAL_OWNER, "a"), (GLOBAL_OWNER, "ab")}),
        (["--user", "ada"], {(ADA, "secret-key"), (ADAS_SESSION, "secret-key")}),
        (["--user", "ada", "--scope", "user"], {(ADA, "secret-key")}),
        (["--user", "ada", "--prefix", "secret", "--scope", "session"], {(ADAS_SESSION, "secret-key")}),
        (["--scope", "session"], {(ADAS_SESSION, "secret-key"), (SESSION, "secret-session")}),
        (["--scope", "user"], {(ADA, "secret-key")}),
        (["--scope", "global"], {(GLOBAL_OWNER, key) for key in EVERYBODYS}),
    ],
)
def test_rm_removes_what_is_chosen_and_nothing_else(
    place: Place, some: Mapping[Any, StoredEntry], run: Callable[..., Done], options: list[str], removed: set[Any]
) -> None:
    done = run("rm", place.target, *options)

    assert (done.code, done.out) == (0, f"{len(removed)} removed\n")
    assert set(content(place)) == set(some) - removed
    assert set(content(place, "other")) == {(GLOBAL_OWNER, "elsewhere")}
    again = run("rm", "--json", place.target, *options)
    assert (again.code, again.document) == (1, {"removed": 0})


def test_rm_all_removes_the_namespace(place: Place, some: Mapping[Any, StoredEntry], run: Callable[..., Done]) -> None:
    done = run("rm", "--json", "--all", place.target)

    assert (done.code, done.document) == (0, {"removed": len(some)})
    assert content(place) == {}
    assert set(content(place, "other")) == {(GLOBAL_OWNER, "elsewhere")}


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--all", "a"],
        ["--all", "--prefix", "a"],
        ["a", "--prefix", "a"],
        ["k", "--scope", "user"],
        ["--limit", "1"],
    ],
)
def test_rm_without_a_clear_choice_removes_nothing(
    place: Place, some: Mapping[Any, StoredEntry], run: Callable[..., Done], options: list[str]
) -> None:
    assert run("rm", place.target, *options).code == 2
    assert set(content(place)) == set(some)


def test_a_fetch_that_began_before_rm_is_not_stored(place: Place) -> None:
    async def fetching() -> bool | None:
        store = place.make()
        try:
            claim = await store.claim(GLOBAL_OWNER, "k", waits=False)
            done = await asyncio.to_thread(in_a_process, "rm", place.target, "k")
            assert done.returncode == 1, done.stderr
            return await store.commit(entry("k"), claim)
        finally:
            await store.aclose()

    fill(place, entry("other"))
    assert asyncio.run(fetching()) is False


# stats and doctor


def test_stats_counts(place: Place, some: Mapping[Any, StoredEntry], run: Callable[..., Done]) -> None:
    done = run("stats", place.target)
    found = run("stats", "--json", place.target).document

    assert done.code == 0
    assert [line.split()[:4] for line in done.out.splitlines()[1:4]] == [
        ["global", "3", "1", "1"],
        ["session", "2", "0", "0"],
        ["user", "1", "0", "0"],
    ]
    assert "tombstones" in done.out
    mine = [each for (owner, _), each in some.items() if owner == GLOBAL_OWNER]
    assert found["scopes"]["global"] == {
        "entries": 3,
        "failures": 1,
        "expired": 1,
        "encrypted": 0,
        "size_bytes": sum(len(each.value.payload) for each in mine),
        "oldest_at": min(each.created_at for each in mine),
        "newest_at": max(each.created_at for each in mine),
    }
    assert (found["entries"], found["failures"]) == (len(some), 1)
    assert found["size_bytes"] > 0
    assert found["details"]


@pytest.mark.usefixtures("some")
def test_doctor_of_a_sound_store(place: Place, run: Callable[..., Done]) -> None:
    done = run("doctor", place.target)
    found = run("doctor", "--json", place.target).document["findings"]

    assert done.code == 0
    assert {each["level"] for each in found} <= {"ok", "note", "warning"}
    assert all(each["subject"][:20] in done.out for each in found)


@pytest.mark.parametrize("damage", ["header", "tables", "pages"])
def test_doctor_finds_damage_and_leaves_the_file_as_it_is(
    file: AFile, tmp_path: Path, run: Callable[..., Done], damage: str
) -> None:
    fill(file, *(entry(f"k{number}", "x" * 2_000) for number in range(100)))
    path = tmp_path / "cache.db"
    if damage == "tables":
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("DROP TABLE tombs")
    else:
        raw = bytearray(path.read_bytes())
        if damage == "header":
            raw[:100] = b"\x00" * 100
        else:
            raw[8 * 4096 : 24 * 4096] = b"\xa5" * (16 * 4096)
        path.write_bytes(raw)
    before = files(tmp_path)

    done = run("doctor", file.target)
    found = run("doctor", "--json", file.target)

    assert (done.code, found.code) == (1, 1)
    assert "error" in done.out
    assert [each["level"] for each in found.document["findings"]] == ["error"]
    assert files(tmp_path) == before


@pytest.mark.usefixtures("some")
def test_an_error_that_the_doctor_finds_ends_with_1_and_a_warning_does_not(
    place: Place, run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    for level, code in ((Level.WARNING, 0), (Level.ERROR, 1)):

        async def doctor(_: object, level: Level = level) -> list[Finding]:
            return [Finding(level, "[bold]it[/]", "There \x1b[2J it is.")]

        monkeypatch.setattr(SqliteStore, "doctor", doctor)
        monkeypatch.setattr(RedisStore, "doctor", doctor)
        done = run("doctor", place.target)
        assert done.code == code
        assert r"[bold]it[/]  There \x1b[2J it is." in done.out


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {path.name: (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) for path in folder.iterdir()}


# Opening

LOOKING: Final = [
    ["ls"],
    ["show", "k"],
    ["rm", "k"],
    ["rm", "--all"],
    ["stats"],
    ["doctor"],
    ["export"],
]


def on(target: str, words: list[str]) -> list[str]:
    return [words[0], target, *words[1:]]


@pytest.mark.parametrize("words", LOOKING)
def test_looking_at_what_is_not_there_makes_nothing(tmp_path: Path, run: Callable[..., Done], words: list[str]) -> None:
    for target in (tmp_path / "none.db", tmp_path / "no" / "folder" / "none.db"):
        done = run(*on(str(target), words))
        assert (done.code, done.out) == (2, "")
        assert "there is no file" in done.err
        assert list(tmp_path.iterdir()) == []


def test_import_of_no_export_makes_nothing(tmp_path: Path, run: Callable[..., Done]) -> None:
    target = str(tmp_path / "none.db")

    assert run("import", target, stdin=b"").code == 2
    assert run("import", target, stdin=b'{"cachemesh_export":2,"namespace":"x","exported_at":1.0}\n').code == 2
    assert run("import", target, str(tmp_path / "none.jsonl")).code == 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("words", [*LOOKING, ["import"]])
@pytest.mark.parametrize("kind", ["text", "empty", "other program", "folder"])
def test_what_is_no_store_is_left_alone(tmp_path: Path, run: Callable[..., Done], words: list[str], kind: str) -> None:
    path = tmp_path / "it"
    if kind == "folder":
        path.mkdir()
    elif kind == "other program":
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("CREATE TABLE t (a)")
    else:
        path.write_bytes(b"some text\n" * 100 if kind == "text" else b"")
    before = {} if kind == "folder" else files(tmp_path)

    done = run(*on(str(path), words), stdin=b'{"cachemesh_export":1,"namespace":"x","exported_at":1.0}\n')

    assert done.code == (1 if (words, kind) == (["doctor"], "text") else 2)
    assert kind == "folder" or files(tmp_path) == before
    assert [each.name for each in tmp_path.iterdir()] == ["it"]


@pytest.mark.parametrize("words", [["ls"], ["show", "k"], ["stats"], ["doctor"], ["export"]])
def test_looking_changes_nothing(file: AFile, tmp_path: Path, run: Callable[..., Done], words: list[str]) -> None:
    fill(file, entry("k"))
    before, held = files(tmp_path), content(file)

    assert run(*on(file.target, words)).code == 0
    assert files(tmp_path) == before
    assert content(file) == held


def test_a_file_that_cannot_be_read(file: AFile, tmp_path: Path, run: Callable[..., Done]) -> None:
    fill(file, entry("k"))
    with contextlib.closing(sqlite3.connect(tmp_path / "cache.db")) as connection:
        connection.execute("PRAGMA user_version=99")

    done = run("ls", file.target)

    assert done.code == 2
    assert "a store of version 99" in done.err


@pytest.fixture
def guarded() -> Iterator[Server]:
    with Server(requirepass="pa55word") as server:
        yield server


@pytest.mark.parametrize("words", [*LOOKING, ["import"]])
def test_the_password_of_a_url_is_shown_nowhere(run: Callable[..., Done], words: list[str]) -> None:
    """Nobody listens; the scheme is wrong; there is an argument too many; the URL is where a command should be."""
    port = free_port()
    good = f"redis://:pa55word@127.0.0.1:{port}"
    header = HEADER + line()
    ended = [
        run(*on(good, words), stdin=header),
        run(*on("nonsense://:pa55word@127.0.0.1", words), stdin=header),
        run(*on("redis://:pa55word@[bad", words), stdin=header),
        run(*on(good, words), "more", good, good, good, stdin=header),
        run(good, *words),
        run(*on("k", words), f"--scope={good}"),
        run("ls", "k", "--limit", good),
        run("ls", "k", f"--{good}"),
    ]

    assert [done.code for done in ended] == [2] * len(ended)
    for done in ended:
        assert "pa55word" not in done.out + done.err
        assert done.err


def test_a_url_with_a_password_works_and_a_wrong_one_is_told_without_it(
    guarded: Server, run: Callable[..., Done]
) -> None:
    place = AServer(guarded.url.replace("://", "://:pa55word@"))
    fill(place, entry("k"))

    assert run("ls", place.target).code == 0
    assert "pa55word" not in run("stats", place.target).out + run("doctor", place.target).out
    wrong = run("ls", place.target.replace("pa55word", "wr0ng"))
    assert wrong.code == 2
    assert "wr0ng" not in wrong.out + wrong.err
    assert run("ls", guarded.url).code == 2


def test_a_server_that_goes_away(server: Server, run: Callable[..., Done]) -> None:
    server.kill()

    done = run("ls", server.url)

    assert done.code == 2
    assert done.err == "Error: the server cannot be used: ServerUnreachableError\n"


# Export and import


def all_kinds() -> list[StoredEntry]:
    """Entries that have all that entries may have."""
    now = time.time()
    return [
        *(entry(key, key, tags=(key[:50], "t")) if "\ud800" not in key else entry(key) for key in HOSTILE),
        *(entry("k", {"of": str(owner)}, owner) for owner in (ADA, ADAS_SESSION, SESSION, (CacheScope.USER, "\ud800"))),
        entry("windows", serve_stale_s=5.0, stale_if_error_s=7.5, ageing_at=now + 3.0),
        entry("failure", is_failure=True, value=Encoded(b'{"code":404}', "Not\ud800Found", 7)),
        entry("for ever", ttl_s=None, expires_at=None),
        *(entry(f"validator {each}", validator=each) for each in ('"etag"', 7, 1.5, True)),
        entry("numbers", value=Encoded(b"[1e400,123456789012345678901234567890,-0.0,1.10]")),
        entry("twice", value=Encoded(b'{"a":1,"a":2}')),
        entry("no json", value=Encoded(b"\xff\x00")),
        entry("unicode", value=Encoded('"äöü\u2028 \U0001f480"'.encode())),
        entry("large", "y" * 1_000_000),
    ]


@pytest.mark.parametrize("there", ["file", "server", "cluster"])
def test_hy2_export_and_import_give_the_same(
    place: Place, tmp_path: Path, run: Callable[..., Done], request: pytest.FixtureRequest, there: str
) -> None:
    """From a file or a server into a file, a server or a cluster."""
    entries = all_kinds()
    fill(place, *entries)
    jsonl = str(tmp_path / "all.jsonl")

    exported = run("export", "--clear", place.target, jsonl)

    assert (exported.code, exported.out) == (0, "")
    assert exported.err == f"cachemesh: {len(entries)} exported\n"
    assert stat.S_IMODE(os.stat(jsonl).st_mode) == 0o600  # noqa: PTH116 (a path as the command takes it)
    other: Place
    if there == "file":
        other = AFile(str(tmp_path / "new" / "other.db"))
    else:
        other = AServer(request.getfixturevalue(there).url)
    if there != "cluster":
        request.getfixturevalue("server").empty()
    imported = run("import", "--json", other.target, jsonl)

    assert (imported.code, imported.err) == (0, "")
    assert imported.document == {"imported": len(entries), "skipped": {}, "failed": {}, "invalid": 0, "complaints": []}
    assert content(other) == by_place(*entries)
    again = run("import", "--json", other.target, jsonl)
    assert again.code == 0
    assert again.document["skipped"] == {"not newer than what is there": len(entries)}
    assert content(other) == by_place(*entries)
    if there == "file":
        assert stat.S_IMODE((tmp_path / "new" / "other.db").stat().st_mode) == 0o600


@pytest.mark.usefixtures("some")
def test_export_leaves_out_what_is_of_users(place: Place, run: Callable[..., Done]) -> None:
    done = run("export", place.target)

    header, *lines = done.lines
    assert (header["cachemesh_export"], header["namespace"]) == (1, "cachemesh")
    assert {line["key"] for line in lines} == set(EVERYBODYS)
    assert "3 of users and sessions left out" in done.err
    assert "secret" not in done.out + done.err
    asked = run("export", "--clear", "--user", "ada", "--json", place.target)
    assert {line["key"] for line in asked.lines[1:]} == {"secret-key"}
    assert json.loads(asked.err) == {"exported": 2, "private": 0, "encrypted": 0}
    nothing = run("export", "--user", "ada", place.target)
    assert (nothing.code, len(nothing.lines)) == (1, 1)
    assert {line["key"] for line in run("export", "--prefix", "a", place.target).lines[1:]} == {"a", "ab"}


def test_an_export_to_a_terminal_is_harmless_and_the_same(
    place: Place, run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(place, entry(HOSTILE[5], Encoded(json.dumps(HOSTILE[5], ensure_ascii=False).encode())))
    plain = run("export", place.target)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)

    done = run("export", place.target)

    assert "\x9b" in plain.out
    is_harmless(done.out)
    assert done.lines[1] == plain.lines[1]


@pytest.mark.usefixtures("some")
def test_export_replaces_a_file_only_if_it_is_told_to(place: Place, run: Callable[..., Done], tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("mine")
    path.chmod(0o644)

    refused = run("export", place.target, str(path))
    assert (refused.code, path.read_text()) == (2, "mine")
    assert run("export", "--force", place.target, str(path)).code == 0
    assert len(path.read_text().splitlines()) == 1 + len(EVERYBODYS)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert run("export", place.target, str(tmp_path / "no" / "folder")).code == 2
    assert not (tmp_path / "no").exists()
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


def test_export_never_replaces_the_store_itself(file: AFile, run: Callable[..., Done]) -> None:
    fill(file, entry("k"))

    assert run("export", "--force", file.target, file.target).code == 2
    assert set(content(file)) == {(GLOBAL_OWNER, "k")}


@pytest.mark.usefixtures("some")
def test_an_export_that_fails_leaves_the_file_as_it_was(
    place: Place, run: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("mine")

    def failing(_: StoredEntry) -> bytes:
        raise OSError(28, "secret")

    monkeypatch.setattr("cachemesh.store_cli.transfer.line_of", failing)
    done = run("export", "--force", place.target, str(path))

    assert done.code == 2
    assert "secret" not in done.err
    assert path.read_text() == "mine"
    assert [each.name for each in tmp_path.iterdir() if each.name.startswith(".")] == []


HEADER: Final = b'{"cachemesh_export":1,"namespace":"x","exported_at":1.0}\n'


def line(**fields: Any) -> bytes:
    """A line of an export; None leaves a field out."""
    now = time.time()
    whole = {
        "scope": "global",
        "key": "k",
        "created_at": now - 50.0,
        "value": "new",
        "expires_at": now + 60.0,
        **fields,
    }
    return json.dumps({name: value for name, value in whole.items() if value is not None}).encode() + b"\n"


def test_hy1_import_never_overwrites_what_is_newer(place: Place, run: Callable[..., Done]) -> None:
    now = time.time()
    fill(place, *(entry(key, "mine", created_at=now - 100.0) for key in ("older", "same", "newer")))
    lines = [
        line(key="older", created_at=now - 200.0),
        line(key="same", created_at=now - 100.0),
        line(key="newer", created_at=now - 50.0),
        line(key="absent"),
    ]

    done = run("import", "--json", place.target, stdin=HEADER + b"".join(lines))

    assert done.code == 0
    assert (done.document["imported"], done.document["skipped"]) == (2, {"not newer than what is there": 2})
    assert {key: each.value.payload for (_, key), each in content(place).items()} == {
        "older": b'"mine"',
        "same": b'"mine"',
        "newer": b'"new"',
        "absent": b'"new"',
    }


def test_hy1_what_is_written_during_an_import_stays(
    place: Place, run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the claim and the commit."""
    kind = type(place.make())
    commit = kind.commit

    async def committing(store: Any, taken: StoredEntry, claim: Any) -> bool | None:
        await store.write(entry("k", "meanwhile"))
        return await commit(store, taken, claim)

    monkeypatch.setattr(kind, "commit", committing)
    done = run("import", "--json", place.target, stdin=HEADER + line())

    assert done.document["skipped"] == {"written by somebody else meanwhile": 1}
    assert content(place)[GLOBAL_OWNER, "k"].value.payload == b'"meanwhile"'


def test_the_newest_of_one_key_wins_wherever_it_stands(place: Place, run: Callable[..., Done]) -> None:
    now = time.time()
    lines = [line(created_at=now - age, value=age) for age in (30, 10, 20, 40)]

    assert run("import", place.target, stdin=HEADER + b"".join(lines)).code == 0
    assert content(place)[GLOBAL_OWNER, "k"].value.payload == b"10"


BAD: Final[list[tuple[bytes, str]]] = [
    (b"secret\n", "no entry"),
    (b"[]\n", "no entry"),
    (b'"\xff secret"\n', "no entry"),
    (line(value="secret")[:-3] + b"\n", "no entry"),
    (line(value=None), "no entry"),
    (line(value_base64="AAAA"), "no entry"),
    (line(value=None, value_base64="secret!"), "no entry"),
    (line(scope="secret"), "no entry"),
    (line(scope="user"), "no entry"),
    (line(user="secret"), "no entry"),
    (line(key=7), "no entry"),
    (line(key={"base64": "secret!"}), "no entry"),
    (line(key={"secret": "AAAA"}), "no entry"),
    (line(unknown="secret"), "no entry"),
    (line(created_at="secret"), "no entry"),
    (line().replace(b'"new"', b'"\\ud800"'), "no entry"),
    (line().replace(b'"new"', b"NaN"), "no entry"),
    (line(validator=["secret"]), "no entry"),
    (line(created_at=time.time() + 10_000), "from the future"),
    (line(ttl_s=-1.0), "a time out of range"),
    (line(ttl_s=1e300), "a time out of range"),
    (line(expires_at=1e300), "a time out of range"),
    (line(version=-1), "a number out of range"),
    (line(version=2**40), "a number out of range"),
    (line(validator=2**64), "a number out of range"),
    (line(tags=["secret"] * 1_001), "too many tags"),
    (line().replace(b'"new"', b"[" * 300 + b"]" * 300), "nested too deeply"),
    (line().replace(b'"new"', b"[" * 500_000 + b"]" * 500_000), "nested too deeply"),
    (line().replace(b'"new"', b"[" * 500_000), "nested too deeply"),
    (b"[" * 500_000 + b"\n", "no entry"),
    (line(value="secret" * 400_000), "longer than --max-line-bytes"),
]


def test_hy1_bad_lines_are_told_by_number_and_the_others_are_taken(
    place: Place, run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "MOST_COMPLAINTS", 100)
    good = [line(key=f"good {number}") for number in range(len(BAD))]
    lines = b"\n".join(bad + taken for (bad, _), taken in zip(BAD, good, strict=True))

    done = run("import", place.target, "--max-line-bytes", "2000000", stdin=HEADER + lines)

    assert done.code == 1
    told = done.err.splitlines()
    # Two lines each, and an empty one between; the header is the first one.
    assert told == [f"cachemesh: line {2 + 3 * number}: {reason}" for number, (_, reason) in enumerate(BAD)]
    assert "secret" not in done.out + done.err
    assert f"{len(good)} imported\n" in done.out
    assert f"{len(BAD)} lines are no entries\n" in done.out
    assert set(content(place)) == {(GLOBAL_OWNER, f"good {number}") for number in range(len(BAD))}


def test_of_many_bad_lines_the_first_are_told(file: AFile, run: Callable[..., Done]) -> None:
    done = run("import", file.target, stdin=HEADER + b"?\n" * 1_000)
    machine = run("import", "--json", file.target, stdin=HEADER + b"?\n" * 1_000)

    assert len(done.err.splitlines()) == 21
    assert "980 lines more" in done.err
    assert machine.document["invalid"] == 1_000
    assert machine.document["complaints"][:2] == [{"line": n, "reason": "no entry"} for n in (2, 3)]
    assert len(machine.document["complaints"]) == 20


@pytest.mark.parametrize(
    "begin",
    [
        b"",
        b"\n",
        b"secret\n",
        b"{}\n",
        b'{"cachemesh_export":"1"}\n',
        b"\xff\xfe",
        b"[" * 1_000_000,
        HEADER.replace(b":1,", b":2,"),
    ],
)
def test_hy1_what_is_no_export_is_refused(place: Place, run: Callable[..., Done], begin: bytes) -> None:
    fill(place, entry("mine"))

    done = run("import", place.target, stdin=begin + line())

    assert (done.code, done.out) == (2, "")
    assert "secret" not in done.err
    assert set(content(place)) == {(GLOBAL_OWNER, "mine")}


def test_an_export_of_nothing_is_imported_with_1(place: Place, run: Callable[..., Done]) -> None:
    fill(place, entry("mine"))

    assert run("import", place.target, stdin=HEADER).code == 1


PEAK: Final = """
import sys
from pathlib import Path
from cachemesh.cli import main
try:
    main(["store", "import", sys.argv[1]])
except SystemExit as ended:
    # Not `ru_maxrss`: that is what the parent had when it forked, if that was more.
    print(*(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmHWM:"))
    sys.exit(ended.code)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is of Linux")
@pytest.mark.parametrize(
    "bomb",
    [
        lambda: b"x" * 120_000_000,
        lambda: line().replace(b'"new"', b"[" * 7_000_000),
        lambda: line(expires_at="?").replace(b'"new"', b"[" + b"[]," * 2_500_000 + b"[]]"),
    ],
    ids=["long", "deep", "wide"],
)
def test_hy2_bombs_take_little_memory(tmp_path: Path, bomb: Callable[[], bytes]) -> None:
    """Less than 50 MB more than a line that is taken."""

    def peak_kib(begin: bytes) -> int:
        command = [sys.executable, "-c", PEAK, str(tmp_path / "cache.db")]
        done = subprocess.run(command, input=begin, capture_output=True, timeout=60, check=False)  # noqa: S603 (our own program)
        assert done.returncode in {0, 1}, done.stderr
        return int(done.stdout.split()[-1])

    usual = peak_kib(HEADER + line())
    assert peak_kib(HEADER + bomb()) < usual + 50_000


# Encrypted stores


class Mask:
    """A cipher, as far as a test of who has none needs one."""

    def encrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
        del owner, context
        return bytes(byte ^ 0x5A for byte in content)

    def decrypt(self, content: bytes, owner: Owner, context: bytes) -> bytes:
        return self.encrypt(content, owner, context)

    def forget(self, owner: Owner | None) -> None:
        """There is one key, and it stays."""


@pytest.fixture
def encrypted(place: Place) -> dict[Any, StoredEntry]:
    entries = [entry("k", "secret", tags=("secret",)), entry("k2", "secret"), entry("k", "secret", ADA)]
    fill(place, *entries, cipher=Mask())
    return by_place(*entries)


def test_without_the_key_keys_are_listed_and_values_are_not_shown(
    place: Place, encrypted: Mapping[Any, StoredEntry], run: Callable[..., Done]
) -> None:
    table, listed = run("ls", place.target), run("ls", "--json", place.target)
    shown, machine = run("show", place.target, "k"), run("show", "--json", place.target, "k")
    stats, export = run("stats", "--json", place.target), run("export", place.target)

    assert [done.code for done in (table, listed, shown, machine, stats, export)] == [0, 0, 0, 0, 0, 1]
    assert table.out.count("encrypted\n") == table.out.count("encrypted") == len(encrypted)
    assert {row["key"] for row in listed.lines if not row["is_hashed"]} == {"k", "k2"}
    assert {(row["is_encrypted"], row["created_at"], row["version"]) for row in listed.lines} == {(True, None, None)}
    assert "encrypted, and there is no key" in shown.out
    assert "value" not in machine.document
    assert machine.document["is_encrypted"] is True
    assert stats.document["scopes"]["global"]["encrypted"] == 2
    assert "2 left out: encrypted" in export.err
    assert all("secret" not in done.out for done in (table, listed, shown, machine, export))
    assert content(place, cipher=Mask()) == encrypted, "looking has removed nothing"


def test_without_the_key_nothing_is_imported(
    place: Place, encrypted: Mapping[Any, StoredEntry], run: Callable[..., Done]
) -> None:
    done = run("import", place.target, stdin=HEADER + line(key="k") + line(key="new"))

    assert done.code == 2
    assert "encrypted" in done.err
    assert content(place, cipher=Mask()) == encrypted


def test_an_encrypted_entry_among_others_is_not_overwritten(place: Place, run: Callable[..., Done]) -> None:
    fill(place, entry("first"))
    fill(place, entry("k"), cipher=Mask())
    # Whichever comes first: a server has no order.
    done = run("import", "--json", place.target, stdin=HEADER + line(key="k"))

    assert done.code in {0, 2}
    assert done.code == 2 or done.document["skipped"] == {"encrypted, and there is no key": 1}
    assert set(content(place, cipher=Mask())) == {(GLOBAL_OWNER, "k")}


@pytest.mark.usefixtures("encrypted")
def test_without_the_key_entries_are_removed(place: Place, run: Callable[..., Done]) -> None:
    assert run("rm", place.target, "k").out == "1 removed\n"
    assert set(content(place, cipher=Mask())) == {(GLOBAL_OWNER, "k2"), (ADA, "k")}
    assert run("rm", place.target, "--user", "ada").code == 0
    assert set(content(place, cipher=Mask())) == {(GLOBAL_OWNER, "k2")}


# The process


def in_a_process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cachemesh", "store", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, **options)  # noqa: S603 (our own command)


def test_the_command_in_a_process(place: Place, some: Mapping[Any, StoredEntry]) -> None:
    listed = in_a_process("ls", "--json", place.target)
    exported = in_a_process("export", place.target)
    helped = in_a_process("--help")
    ascii_only = in_a_process("ls", place.target, env={**os.environ, "PYTHONIOENCODING": "ascii"})

    assert (listed.returncode, listed.stderr) == (0, "")
    assert len(listed.stdout.splitlines()) == len(some)
    assert (exported.returncode, len(exported.stdout.splitlines())) == (0, 1 + len(EVERYBODYS))
    assert helped.returncode == 0
    assert all(name in helped.stdout for name in ("ls", "show", "rm", "stats", "doctor", "export", "import"))
    assert ascii_only.returncode == 0, ascii_only.stderr
    assert in_a_process("ls", f"{place.target}/none" if "://" not in place.target else "nonsense://x").returncode == 2
    assert in_a_process("show", place.target, "none").returncode == 1


@pytest.mark.parametrize("words", [["export"], ["ls", "--json"], ["ls", "--limit", "100000"]])
def test_a_pipe_that_is_closed_early_is_no_trouble(place: Place, words: list[str]) -> None:
    """As of `| head -1`: a first line, no traceback, and the exit code that shells have for it."""
    # Far more than a pipe holds (64 KiB), whatever is printed of it.
    fill(place, *(entry(f"{number} {'k' * 40}", "x" * 1_000) for number in range(800)))
    command = [sys.executable, "-m", "cachemesh", "store", *on(place.target, words)]

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:  # noqa: S603 (our own command)
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
        assert process.wait(60) == 141

    assert told == b""


def test_who_interrupts_it_gets_130(place: Place, run: Callable[..., Done], monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(type(place.make()), "scan", interrupted)
    fill(place, entry("k"))

    assert run("ls", place.target).code == 130


@pytest.mark.parametrize("missing", ["rich", "click"])
def test_a_missing_package_is_named(missing: str) -> None:
    program = f"import sys; sys.modules[{missing!r}] = None; from cachemesh.cli import main; main(['store', 'ls', 'x'])"

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 (our own program)

    assert done.returncode == 2
    assert done.stderr == f"cachemesh: {missing} not found; run: pip install 'cachemesh[cli]'\n"


def test_without_redis_files_are_looked_at_all_the_same(file: AFile) -> None:
    fill(file, entry("k"))
    program = "import sys; sys.modules['redis'] = None; from cachemesh.cli import main; main(sys.argv[1:])"

    def code_and_error(target: str) -> tuple[int, str]:
        command = [sys.executable, "-c", program, "store", "ls", target]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 (our own program)
        return done.returncode, done.stderr

    assert code_and_error(file.target) == (0, "")
    assert code_and_error("redis://localhost") == (2, "Error: redis not found; run: pip install 'cachemesh[redis]'\n")


def test_a_cluster_is_looked_through(cluster: Cluster, run: Callable[..., Done]) -> None:
    place = AServer(cluster.url)
    fill(place, *(entry(f"k{number}") for number in range(50)))

    assert len(run("ls", "--json", place.target).lines) == 50
    assert run("stats", "--json", place.target).document["details"]["servers"] == 3
    assert run("doctor", place.target).code == 0
    assert run("rm", "--prefix", "k1", "--json", place.target).document == {"removed": 11}
