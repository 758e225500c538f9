"""A client's cookies and bodies against real servers: what is stored, what a redirect takes along, what arrives."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from katipo import Client


@pytest.fixture
def client() -> Iterator[Client]:
    """Follows redirects, and has a cookie of its own for whatever it addresses."""
    with Client(follow_redirects=True, cookies={"own": "1"}) as made:
        yield made


def seen(client: Client, url: str, **options: Any) -> Any:
    """The cookies that httpbin got."""
    return client.get(url + "/cookies", **options).json()["cookies"]


def test_a_server_sets_and_deletes_cookies(client: Client, httpbin: Any) -> None:
    """Also in a redirect on the way."""
    assert client.get(httpbin.url + "/cookies/set?sid=abc").json()["cookies"] == {"own": "1", "sid": "abc"}
    assert seen(client, httpbin.url) == {"own": "1", "sid": "abc"}
    assert client.cookies["sid"] == "abc"
    client.get(httpbin.url + "/cookies/delete?sid")
    assert seen(client, httpbin.url) == {"own": "1"}
    assert "sid" not in client.cookies


def test_a_request_s_own_cookies_are_sent_once(client: Client, httpbin: Any) -> None:
    """In place of the client's of the same name."""
    client.get(httpbin.url + "/cookies/set?sid=abc")
    own = {"own": "2", "x": "y"}
    assert seen(client, httpbin.url, cookies=own) == {"own": "2", "sid": "abc", "x": "y"}
    assert seen(client, httpbin.url) == {"own": "1", "sid": "abc"}


def test_a_redirect_to_another_origin_takes_only_the_host_s_cookies_along(
    client: Client, httpbin: Any, origin: Any
) -> None:
    """The caller's are for whom the caller addressed; cookies know no ports."""
    client.get(httpbin.url + "/cookies/set?sid=abc")
    to = {"to": httpbin.url + "/cookies"}
    response = client.get(origin.http + "/redirect/302", params=to, cookies={"x": "y"})
    assert response.json()["cookies"] == {"sid": "abc"}


def test_multipart_with_a_file_arrives_with_its_length(client: Client, httpbin: Any, tmp_path: Path) -> None:
    """As a real server reads it."""
    big = tmp_path / "big.txt"
    big.write_bytes(b"x" * 300_000)
    got = client.post(httpbin.url + "/post", data={"a": ["1", "2"]}, files={"f": big}).json()
    assert got["form"] == {"a": ["1", "2"]}
    assert got["files"] == {"f": "x" * 300_000}
    assert int(got["headers"]["Content-Length"]) > 300_000


def test_files_are_sent_from_where_they_stand(client: Client, httpbin: Any, tmp_path: Path) -> None:
    """The position of one that the worker reads stays."""
    path = tmp_path / "big.bin"
    path.write_bytes(b"a" * 100 + b"b" * 300_000)
    with open(path, "rb") as file:
        file.seek(100)
        assert client.post(httpbin.url + "/post", content=file).json()["data"] == "b" * 300_000
        assert file.tell() == 100
    assert len(client.post(httpbin.url + "/post", content=path).json()["data"]) == 300_100
