"""Buffered request bodies: what may be given, and the bytes and headers that come of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

import katipo
from tests.support.pattern import pattern

if TYPE_CHECKING:
    from tests.support.endpoints import Endpoint
    from tests.support.origin import Origin

pytestmark = pytest.mark.core

FORM = "application/x-www-form-urlencoded"


def sent_headers(response: katipo.Response) -> dict[str, str]:
    """What the server got, by name in lower case."""
    return {name.lower(): value for name, value in response.json()["headers"]}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"bytes \x00\r\n\xff", b"bytes \x00\r\n\xff"),
        ("text ä€😀", "text ä€😀".encode()),
        (bytearray(b"array"), b"array"),
        (memoryview(b"a view of it")[2:6], b"view"),
        (memoryview(b"0123456789")[::2], b"02468"),
        ("", b""),
        (b"", b""),
    ],
    ids=["bytes", "str", "bytearray", "memoryview", "strided", "empty str", "empty bytes"],
)
def test_bytes_and_text_are_sent_as_they_are_and_without_a_type(
    pool: katipo.Pool, endpoint: Endpoint, body: Any, expected: bytes
) -> None:
    """Bytes-like bodies go out byte for byte, text as UTF-8, neither called anything."""
    echoed = pool.post(endpoint("/echo"), body=body, **endpoint.options)
    assert echoed.content == expected
    response = pool.post(endpoint("/upload"), body=body, **endpoint.options)
    assert sent_headers(response)["content-length"] == str(len(expected))
    assert "content-type" not in sent_headers(response)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"a": "1", "b c": "x&y=z"}, b"a=1&b+c=x%26y%3Dz"),
        ([("a", "1"), ("b", ""), ("a", "2")], b"a=1&b=&a=2"),
        ({"a": "1"}.items(), b"a=1"),
        ({"a": ["1", "2"], "n": 3, "f": 1.5, "yes": True, "none": None}, b"a=1&a=2&n=3&f=1.5&yes=true&none="),
        ({"ä": "€"}, b"%C3%A4=%E2%82%AC"),
        ({"raw": b"\xff\x00"}, b"raw=%FF%00"),
    ],
    ids=["mapping", "pairs", "items", "kinds", "text", "bytes"],
)
def test_a_mapping_or_pairs_are_form_encoded(pool: katipo.Pool, endpoint: Endpoint, body: Any, expected: bytes) -> None:
    """A form is encoded as browsers and httpx do it, and called a form."""
    handle = pool.async_post(endpoint("/echo"), body=body, **endpoint.options)
    assert handle.result().content == expected


def test_a_form_may_be_an_iterator(pool: katipo.Pool, origin: Origin) -> None:
    """Pairs are read once: a generator will do."""
    fields: Iterator[tuple[str, str]] = ((name, str(number)) for number, name in enumerate("aab"))
    assert pool.post(origin.strict_http + "/echo", body=fields).content == b"a=0&a=1&b=2"


def test_a_form_has_its_content_type(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The server is told once that a body is a form; an empty form too."""
    for body in ({"a": "1"}, {}):
        response = pool.post(endpoint("/upload"), body=body, **endpoint.options)
        assert sent_headers(response)["content-type"] == FORM
        assert response.request.headers["content-type"] == FORM


def test_a_form_is_read_by_a_real_server(pool: katipo.Pool, web: Endpoint) -> None:
    """httpbin reads from the form what was put in."""
    response = pool.post(web("/post"), body={"a": ["1", "2"], "ä": "b c"}, **web.options)
    assert response.json()["form"] == {"a": ["1", "2"], "ä": "b c"}


def test_a_content_type_of_the_callers_stands(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A Content-Type that is given replaces the form's, and is sent with bytes as well."""
    for body in (b"{}", {"a": "1"}):
        response = pool.post(
            endpoint("/upload"), body=body, headers={"content-type": "application/x-mine"}, **endpoint.options
        )
        types = [value for name, value in response.json()["headers"] if name.lower() == "content-type"]
        assert types == ["application/x-mine"]


def test_a_large_body_arrives_whole(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """16 MiB of random bytes reach the server in order and come to the same sum."""
    body = os.urandom(16 << 20)
    seen = pool.put(endpoint("/upload"), body=body, **endpoint.options).json()
    assert (seen["length"], seen["sha256"]) == (len(body), hashlib.sha256(body).hexdigest())


def test_a_large_body_is_echoed_while_it_is_sent(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """Both bodies travel at once without one holding the other up."""
    body = pattern(3, 4 << 20)
    assert pool.post(endpoint("/echo"), body=body, **endpoint.options).content == body


def test_a_large_body_reaches_a_real_server(pool: katipo.Pool, web: Endpoint) -> None:
    """A megabyte survives a proxy and comes back in httpbin's answer."""
    body = b"0123456789abcdef" * 65536
    response = pool.post(web("/post"), body=body, headers={"Content-Type": "text/plain"}, **web.options)
    assert response.json()["data"].encode() == body


def test_changing_a_buffer_after_the_call_changes_nothing(
    pool: katipo.Pool, endpoint: Endpoint, origin: Origin
) -> None:
    """The body is copied at the call: what the caller does to it later is not sent."""
    gate = origin.fresh_id()
    body = bytearray(pattern(0, 1 << 20))
    expected = hashlib.sha256(body).hexdigest()
    handle = pool.async_post(endpoint("/upload", gate=gate, every=1 << 30), body=body, **endpoint.options)
    body[:] = bytes(len(body))
    origin.open_gate(gate, None)
    assert handle.result(30).json()["sha256"] == expected


def test_a_body_is_never_announced_with_expect(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A large body goes out at once: libcurl's `Expect: 100-continue` would cost a second with many servers."""
    response = pool.post(endpoint("/upload"), body=bytes(2 << 20), **endpoint.options)
    assert "expect" not in sent_headers(response)


def test_a_length_that_agrees_may_be_given(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """The caller's own Content-Length, where it is right, is sent once."""
    response = pool.post(endpoint("/upload"), body=b"12345", headers={"Content-Length": "5"}, **endpoint.options)
    lengths = [value for name, value in response.json()["headers"] if name.lower() == "content-length"]
    assert (lengths, response.json()["length"]) == (["5"], 5)


def test_the_request_of_a_response_has_the_body(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A response can say what it was asked with."""
    response = pool.post(endpoint("/echo"), body=bytearray(b"asked"), **endpoint.options)
    assert response.request.content == b"asked"
    assert response.request.url == endpoint("/echo")
