"""HT-3: which redirects are followed, and what goes along; the rules as a table, and both faces by them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from returns.result import Success

from cachemesh.sources import FailureKind
from cachemesh.sources.http.redirects import Hop, Place, address_of, hop_of, is_inside
from tests.sources.servers import RawServer, Request, raw_server, response

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.sources.driving import Driver

HERE = Place("https", "a.example")

# The rules


@pytest.mark.parametrize(
    ("status", "method", "after"),
    [
        # RFC 9110, section 15.4.2 and 15.4.3: a POST may become a GET; nothing else does.
        (301, "GET", "GET"),
        (301, "POST", "GET"),
        (301, "PUT", "PUT"),
        (301, "HEAD", "HEAD"),
        (302, "POST", "GET"),
        (302, "DELETE", "DELETE"),
        (302, "HEAD", "HEAD"),
        # 15.4.4: the answer is to be had with a GET.
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "DELETE", "GET"),
        (303, "HEAD", "HEAD"),
        # 15.4.8 and 15.4.9: the method must not change.
        (307, "POST", "POST"),
        (307, "GET", "GET"),
        (308, "POST", "POST"),
        (308, "PATCH", "PATCH"),
    ],
)
def test_what_becomes_of_the_method(status: int, method: str, after: str) -> None:
    assert hop_of(status, method, HERE, HERE) == Hop(after, keeps_body=after == method, leaves_origin=False)


@pytest.mark.parametrize(
    ("here", "there", "leaves"),
    [
        (Place("https", "a.example"), Place("https", "a.example"), False),
        (Place("https", "a.example"), Place("https", "b.example"), True),
        (Place("https", "a.example"), Place("https", "a.example", 8443), True),
        (Place("http", "a.example"), Place("https", "a.example"), True),
        (Place("https", "a.example"), Place("https", "www.a.example"), True),
        (Place("http", "127.0.0.1", 1), Place("http", "127.0.0.1", 2), True),
        (Place("http", "localhost"), Place("http", "127.0.0.1"), True),
        (Place("http", "10.0.0.1"), Place("http", "192.168.0.1"), True),
    ],
)
def test_what_is_another_origin(here: Place, there: Place, leaves: bool) -> None:
    assert hop_of(307, "GET", here, there) == Hop("GET", keeps_body=True, leaves_origin=leaves)


@pytest.mark.parametrize(
    ("there", "why"),
    [
        (Place("file", ""), "a redirect to another scheme than http and https"),
        (Place("ftp", "a.example"), "a redirect to another scheme than http and https"),
        (Place("javascript", ""), "a redirect to another scheme than http and https"),
        (Place("", ""), "a redirect to another scheme than http and https"),
        (Place("http", "a.example"), "a redirect from https to http"),
        (Place("https", ""), "a redirect to no host"),
        (Place("https", "169.254.169.254"), "a redirect to a link-local, unspecified or multicast address"),
        (Place("https", "fe80::1"), "a redirect to a link-local, unspecified or multicast address"),
        (Place("https", "::ffff:169.254.169.254"), "a redirect to a link-local, unspecified or multicast address"),
        (Place("https", "2852039166"), "a redirect to a link-local, unspecified or multicast address"),
        (Place("https", "0xa9.254.169.254"), "a redirect to a link-local, unspecified or multicast address"),
        (Place("https", "0.0.0.0"), "a redirect to a link-local, unspecified or multicast address"),  # noqa: S104 (nobody binds to it)
        (Place("https", "::"), "a redirect to a link-local, unspecified or multicast address"),
        (Place("https", "0"), "a redirect to a link-local, unspecified or multicast address"),
        (Place("https", "224.0.0.1"), "a redirect to a link-local, unspecified or multicast address"),
        (Place("https", "ff02::1"), "a redirect to a link-local, unspecified or multicast address"),
        (Place("https", "127.0.0.1"), "a redirect from outside to a private address"),
        (Place("https", "127.1"), "a redirect from outside to a private address"),
        (Place("https", "0x7f000001"), "a redirect from outside to a private address"),
        (Place("https", "017700000001"), "a redirect from outside to a private address"),
        (Place("https", "127.0.0.1."), "a redirect from outside to a private address"),
        (Place("https", "::1"), "a redirect from outside to a private address"),
        (Place("https", "::ffff:10.0.0.1"), "a redirect from outside to a private address"),
        (Place("https", "2002:7f00:1::"), "a redirect from outside to a private address"),
        (Place("https", "10.1.2.3"), "a redirect from outside to a private address"),
        (Place("https", "172.16.0.1"), "a redirect from outside to a private address"),
        (Place("https", "192.168.1.1"), "a redirect from outside to a private address"),
        (Place("https", "100.64.0.1"), "a redirect from outside to a private address"),
        (Place("https", "fd00::1"), "a redirect from outside to a private address"),
        (Place("https", "localhost"), "a redirect from outside to a private address"),
        (Place("https", "LOCALHOST."), "a redirect from outside to a private address"),
        (Place("https", "a.localhost"), "a redirect from outside to a private address"),
    ],
)
def test_ht3_what_is_not_followed(there: Place, why: str) -> None:
    assert hop_of(302, "GET", HERE, there) == why


def test_what_is_inside_may_lead_inside_but_not_to_a_link_local_address() -> None:
    inside = Place("http", "localhost", 8000)

    assert isinstance(hop_of(302, "GET", inside, Place("http", "10.0.0.1")), Hop)
    assert isinstance(hop_of(302, "GET", inside, Place("http", "8.8.8.8")), Hop)
    assert isinstance(hop_of(302, "GET", inside, Place("http", "169.254.169.254")), str)


@pytest.mark.parametrize(
    "host", ["example.org", "1.2.3.4.example.org", "8.8.8.8", "2001:4860:4860::8888", "", "a" * 300]
)
def test_what_is_outside(host: str) -> None:
    assert not is_inside(host)


def test_names_are_no_addresses() -> None:
    assert address_of("example.org") is None
    assert address_of("1.2.3.4.5") is None


# Both faces


@pytest.fixture
def other() -> Iterator[RawServer]:
    """Another origin: what it hears is what goes along."""
    with raw_server(response(b"1")) as server:
        yield server


def to(location: str, status: str = "302 Found") -> Any:
    """Redirects `/from`, and answers the rest."""

    def script(request: Request) -> Any:
        yield response(status=status, location=location) if request.target.startswith("/from") else response(b"1")

    return script


SECRETS: dict[str, Any] = {
    "authorization": "Bearer canary",
    "proxy-authorization": "canary",
    "cookie": "c=canary",
    "x-api-key": "canary",
    "x-of-the-call": "canary",
    "referer": "https://canary",
    "origin": "https://canary",
}


def test_ht3_nothing_secret_goes_to_another_origin(driver: Driver, other: RawServer) -> None:
    with raw_server(to(f"{other.url}/there?x=1")) as server:
        source = driver.open(
            server.url, headers={**SECRETS, "accept": "text/x", "accept-language": "eo"}, auth=("canary", "canary")
        )
        assert source.get("/from", headers={"x-of-the-call": "canary"}, parser=int) == Success(1)

    [arrived] = other.requests
    assert arrived.target == "/there?x=1"
    assert set(arrived.headers) == {"host", "accept", "accept-language", "accept-encoding", "user-agent"} | (
        {"content-length"} if "content-length" in arrived.headers else set()
    )
    assert (arrived.headers["accept"], arrived.headers["accept-language"]) == ("text/x", "eo")
    assert b"canary" not in arrived.head
    assert server.requests[0].headers["x-of-the-call"] == "canary"


def test_ht3_nothing_of_a_client_that_was_given_goes_to_another_origin(driver: Driver, other: RawServer) -> None:
    client = driver.client(httpx2, headers=SECRETS, auth=("canary", "canary"), cookies={"d": "canary"})
    with raw_server(to(f"{other.url}/there")) as server:
        at = server.url.replace("http://", "http://canary:canary@")
        assert driver.open(at, client=client).get("/from", parser=int) == Success(1)

    assert b"Bearer" not in other.requests[0].head
    assert "authorization" not in other.requests[0].headers
    assert "x-api-key" not in other.requests[0].headers


def test_ht3_credentials_in_a_location_are_dropped(driver: Driver, other: RawServer) -> None:
    with raw_server(to(other.url.replace("http://", "http://user:canary@"))) as server:
        assert driver.open(server.url).get("/from", parser=int) == Success(1)

    assert "authorization" not in other.requests[0].headers


def test_ht3_what_was_dropped_stays_dropped_on_the_way_back(driver: Driver) -> None:
    with raw_server(b"") as there, raw_server(b"") as home:
        home.script = to(f"{there.url}/from")
        there.script = to(f"{home.url}/back")
        source = driver.open(home.url, headers={"authorization": "Bearer canary"}, auth=("canary", "canary"))
        assert source.get("/from", parser=int) == Success(1)

    assert [b"uthorization" in each.head for each in home.requests] == [True, False]


def test_at_home_all_goes_along(driver: Driver) -> None:
    with raw_server(to("/there#fragment")) as server:
        source = driver.open(server.url, headers=SECRETS, auth=("ada", "secret"))
        assert source.get("/from", parser=int) == Success(1)

    first, second = server.requests
    assert second.target == "/there"
    assert {name: second.headers[name] for name in SECRETS if name != "authorization"} == {
        name: value for name, value in SECRETS.items() if name != "authorization"
    }
    assert first.headers["authorization"] == second.headers["authorization"]
    assert second.headers["authorization"].startswith("Basic ")


def test_a_jar_decides_for_itself(driver: Driver) -> None:
    """A client's own cookies are for the paths that they were set for."""

    def script(request: Request) -> Any:
        if request.target == "/from":
            yield response(status="302 Found", location="/there", set_cookie="c=1; path=/there")
        yield response(b"1")

    with raw_server(script) as server:
        assert driver.open(server.url, client=driver.client(httpx2)).get("/from", parser=int) == Success(1)

    assert [each.headers.get("cookie") for each in server.requests] == [None, "c=1"]


def test_an_exchange_is_of_the_last_request(driver: Driver) -> None:
    with raw_server(to("/there?b=2")) as server:
        exchange = driver.open(server.url).exchange("POST", "/from", content=b"x").unwrap()

    assert (exchange.method, exchange.url) == ("GET", f"{server.url}/there?b=2")


@pytest.mark.parametrize(
    ("status", "method", "after", "body"),
    [
        ("301 Moved", "POST", "GET", b""),
        ("303 See Other", "PUT", "GET", b""),
        ("307 Temporary", "POST", "POST", b"12"),
        ("308 Permanent", "PUT", "PUT", b"12"),
        ("302 Found", "PATCH", "PATCH", b"12"),
    ],
)
def test_the_body_goes_where_the_method_stays(
    driver: Driver, other: RawServer, status: str, method: str, after: str, body: bytes
) -> None:
    with raw_server(to(f"{other.url}/there", status)) as server:
        options = {"content": b"12", "headers": {"content-type": "text/x"}}
        assert driver.open(server.url).request(method, "/from", parser=int, **options) == Success(1)

    [arrived] = other.requests
    assert (arrived.method, arrived.body) == (after, body)
    assert arrived.headers.get("content-type") == ("text/x" if body else None)


@pytest.mark.parametrize("status", ["307 Temporary", "308 Permanent"])
def test_a_body_that_cannot_be_sent_again_ends_it(driver: Driver, other: RawServer, status: str) -> None:
    async def numbers() -> Any:
        yield b"12"

    with raw_server(to(f"{other.url}/there", status)) as server:
        content = numbers() if driver.is_async else iter([b"12"])
        failure = driver.open(server.url).post("/from", content=content).failure()

    assert failure.message == "a redirect of a request whose body cannot be sent again"
    assert other.requests == []


def test_an_upload_is_sent_again(driver: Driver, other: RawServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12")
    with raw_server(to(f"{other.url}/there", "307 Temporary")) as server:
        assert driver.open(server.url).upload("/from", tmp_path / "file", parser=int) == Success(1)

    assert other.requests[0].body == b"12"


def test_at_most_ten_are_followed(driver: Driver) -> None:
    with raw_server(lambda _: [response(status="302 Found", location="/again")]) as server:
        failure = driver.open(server.url).get("/").failure()
        assert (failure.message, failure.status, failure.is_retryable) == ("too many redirects", 302, False)
        assert len(server.requests) == 11

        failure = driver.open(server.url, max_redirects=0).get("/").failure()
        assert (failure.kind, failure.status) == (FailureKind.BAD_RESPONSE, 302)
        assert len(server.requests) == 12


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://example.org/",
        "javascript:alert(1)",
        "data:text/plain,canary",
        "http://169.254.169.254/latest/meta-data",
        "http://[fe80::1]/",
        "http://0/",
        "http://[::1",
        "http://host:canary/",
        "https:///path",
    ],
)
def test_ht3_no_answer_leads_where_it_should_not(driver: Driver, location: str) -> None:
    with raw_server(to(location)) as server:
        failure = driver.open(server.url, timeout=5).get("/from").failure()
        assert len(server.requests) == 1

    assert (failure.kind, failure.status) == (FailureKind.BAD_RESPONSE, 302)
    assert failure.message.startswith("a redirect ")
    assert "canary" not in repr(failure)


@pytest.mark.parametrize("status", ["300 Multiple Choices", "304 Not Modified", "305 Use Proxy", "306 x", "302 Found"])
def test_what_is_no_redirect_is_a_failure(driver: Driver, status: str) -> None:
    location = "" if status.startswith("302") else "/there"
    with raw_server(response(status=status, location=location)) as server:
        failure = driver.open(server.url).get("/from").failure()

    assert (failure.kind, str(failure.status)) == (FailureKind.BAD_RESPONSE, status[:3])


def test_ht3_a_public_origin_does_not_lead_inside(driver: Driver, other: RawServer) -> None:
    """The public origin is played by a proxy that the client was given."""
    with raw_server(response(status="302 Found", location=other.url)) as proxy:
        client = driver.client(httpx2, proxy=proxy.url)
        failure = driver.open("http://example.org", client=client).get("/from").failure()

    assert failure.message == "a redirect from outside to a private address"
    assert other.requests == []
