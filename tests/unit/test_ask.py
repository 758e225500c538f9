"""What a redirect makes of a call: method, body, headers, and above all what does not go along."""

from collections.abc import Iterator
from typing import Any

import pytest

from katipo import (
    BadOptions,
    Client,
    Headers,
    RemoteProtocolError,
    Response,
    StreamConsumed,
    Timeout,
    UnsupportedProtocol,
)
from katipo._ask import Ask, method_after, redirected, without_credentials


@pytest.fixture
def client() -> Iterator[Client]:
    with Client(auth=("user", "word"), trust_env=False) as client:
        yield client


def ask(client: Client, method: str = "GET", url: str = "http://first.example/a/b?q=1", **options: Any) -> Ask:
    return client._session.ask(method, url, options)


def answer(to: Ask, status: int, location: str) -> Response:
    return Response(status, headers={"Location": location}, request=to.request())


@pytest.mark.parametrize(
    ("status", "method", "expected"),
    [
        (301, "POST", "GET"),
        (302, "POST", "GET"),
        (303, "POST", "GET"),
        (303, "PUT", "GET"),
        (303, "DELETE", "GET"),
        (303, "HEAD", "HEAD"),
        (301, "PUT", "PUT"),
        (302, "DELETE", "DELETE"),
        (301, "HEAD", "HEAD"),
        (307, "POST", "POST"),
        (308, "POST", "POST"),
        (308, "PATCH", "PATCH"),
    ],
)
def test_methods_are_rewritten_as_fetch_does(status: int, method: str, expected: str) -> None:
    """RFC 9110 15.4 allows POST to become GET on 301 and 302, and fetch makes it so."""
    assert method_after(status, method) == expected


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/c", "http://first.example/c"),
        ("c", "http://first.example/a/c"),
        ("?x=2", "http://first.example/a/b?x=2"),
        ("//other.example/c", "http://other.example/c"),
        ("https://other.example", "https://other.example/"),
        ("http://user:word@other.example/c", "http://other.example/c"),
        ("/ü", "http://first.example/%C3%BC"),
    ],
)
def test_where_a_location_leads(client: Client, location: str, expected: str) -> None:
    """RFC 3986 5.2; a user in it is the server's, not ours."""
    first = ask(client)
    following = redirected(first, answer(first, 302, location))
    assert following.url == expected
    assert following.auth is (first.auth if "other" not in location else None)


def test_the_fragment_is_inherited(client: Client) -> None:
    """RFC 9110 10.2.2."""
    first = ask(client, url="http://first.example/#here")
    assert redirected(first, answer(first, 302, "/c")).url == "http://first.example/c#here"
    assert redirected(first, answer(first, 302, "/c#there")).url == "http://first.example/c#there"


def test_a_body_that_is_not_sent_again_takes_its_headers_along(client: Client) -> None:
    """A GET with a Content-Type of nothing would be a lie."""
    first = ask(
        client, "POST", json={"a": 1}, headers={"Content-Language": "en", "X-Kept": "1", "Content-Encoding": "br"}
    )
    following = redirected(first, answer(first, 303, "/c"))
    assert following.method == "GET"
    assert following.body is None
    assert following.headers["x-kept"] == "1"
    assert not {"content-type", "content-language", "content-encoding"} & set(following.headers)


@pytest.mark.parametrize("status", [307, 308])
def test_a_body_is_sent_again_if_it_can_be(client: Client, status: int) -> None:
    """Bytes and lists can, an iterator cannot."""
    for content in (b"abc", [b"a", b"b"]):
        first = ask(client, "POST", content=content)
        assert redirected(first, answer(first, status, "/c")).body is first.body
    once = ask(client, "POST", content=iter([b"a"]))
    with pytest.raises(StreamConsumed, match=str(status)):
        redirected(once, answer(once, status, "/c"))


SECRETS = {
    "Authorization": "Bearer x",
    "Cookie": "a=b",
    "Proxy-Authorization": "Basic x",
    "X-Api-Key": "x",
    "X-Auth-Token": "x",
}


@pytest.mark.parametrize(
    "location",
    ["http://other.example/", "https://first.example/", "http://first.example:8080/", "http://sub.first.example/"],
)
def test_no_credential_leaves_its_origin(client: Client, location: str) -> None:
    """Scheme, host and port make an origin (RFC 6454)."""
    first = ask(
        client,
        headers={**SECRETS, "X-Other": "1", "Idempotency-Key": "7", "Host": "virtual.example"},
        cookies={"own": "1"},
        curl_options={"XOAUTH2_BEARER": "x", "TCP_NODELAY": 1},
    )
    following = redirected(first, answer(first, 307, location))
    assert following.auth is None
    assert not following.cookies
    assert not following.addressed
    assert not following.keeps_credentials
    assert not {name.lower() for name in SECRETS} & set(following.headers)
    assert "host" not in following.headers
    assert following.headers["x-other"] == "1"
    assert following.headers["idempotency-key"] == "7"
    assert following.curl_options == {"TCP_NODELAY": 1}
    back = redirected(following, answer(following, 307, "http://first.example/home"))
    assert back.auth is None, "what was dropped does not come back"
    assert not back.keeps_credentials


def test_credentials_stay_within_their_origin(client: Client) -> None:
    """A redirect to another path is none to another server."""
    first = ask(client, headers={**SECRETS, "Host": "virtual.example"}, cookies={"own": "1"})
    following = redirected(first, answer(first, 302, "http://FIRST.example:80/c"))
    assert following.auth is first.auth
    assert following.cookies == {"own": "1"}
    assert following.addressed
    assert Headers(SECRETS).items() <= following.headers.items()
    assert following.headers["host"] == "virtual.example"


@pytest.mark.parametrize("location", ["ftp://first.example/", "file:///etc/passwd", "javascript:alert(1)"])
def test_other_schemes_are_not_followed(client: Client, location: str) -> None:
    """Only http and https ever are."""
    first = ask(client)
    with pytest.raises(UnsupportedProtocol) as caught:
        redirected(first, answer(first, 302, location))
    assert caught.value.request is not None
    assert caught.value.request_sent


@pytest.mark.parametrize("location", ["http://", "http://[::1", "http://a b/", "http://x:99999/"])
def test_a_location_that_is_no_url_is_the_servers_fault(client: Client, location: str) -> None:
    """Not the caller's, whose InvalidURL would say so."""
    first = ask(client)
    with pytest.raises(RemoteProtocolError):
        redirected(first, answer(first, 302, location))


def test_options_that_hold_credentials_are_known() -> None:
    """By the beginning of their name, with or without CURLOPT_."""
    given = {
        "SSLCERT_BLOB": b"",
        "CURLOPT_SSLKEYTYPE": "",
        "xoauth2_bearer": "",
        "tlsauth_password": "",
        "SSL_OPTIONS": 1,
    }
    assert without_credentials(given) == {"SSL_OPTIONS": 1}


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"headers": {"A": 1}}, "headers"),
        ({"headers": 5}, "headers"),
        ({"proxy": 5}, "proxy"),
        ({"follow_redirects": "yes"}, "follow_redirects"),
        ({"decode": 1}, "decode"),
        ({"max_response_bytes": -1}, "max_response_bytes"),
        ({"curl_options": ["A"]}, "curl_options"),
        ({"timeout": "5"}, "timeout"),
        ({"auth": 5}, "auth"),
        ({"content": b"", "json": {}}, "json"),
    ],
)
def test_wrong_arguments_are_named(client: Client, options: dict[str, Any], named: str) -> None:
    """Before anything is sent."""
    with pytest.raises(BadOptions, match=named):
        ask(client, "POST", **options)


def test_none_switches_the_clients_values_off(client: Client) -> None:
    """One left out takes them."""
    assert ask(client).auth is not None
    off = ask(client, auth=None, timeout=None, follow_redirects=None, max_response_bytes=None, decode=None)
    assert off.decode is False
    assert off.auth is None
    assert off.timeout.connect is off.timeout.read is off.timeout.total is None
    assert off.follow is False
    assert off.max_bytes == -1


def test_what_is_left_of_the_total_is_never_rounded_down(client: Client) -> None:
    """It would fire before its time: of 250 ms some microseconds have passed already."""
    assert ask(client, timeout=Timeout(total=0.25)).clocks()["timeout_ms"] == 250
