"""User code that type checkers must accept, and what they make of it. Read by test_typing.py, never run."""

# ruff: noqa: F821  (reveal_type needs no import to be understood)

from __future__ import annotations

from pathlib import Path

import katipo
from katipo import AsyncRequestOptions, RequestOptions

pool = katipo.Pool(2, max_host_connections=8, max_in_flight=None, name="p")
box = katipo.Mailbox()
url = katipo.URL("https://example.com/")

reveal_type(pool.get("https://example.com/"))  # R: Response
reveal_type(pool.request("GET", url, timeout_ms=5000))  # R: Response
reveal_type(pool.async_get(url))  # R: Handle
reveal_type(pool.async_get(url).result(timeout=1.0))  # R: Response
reveal_type(pool.get(url).content)  # R: bytes
reveal_type(pool.get(url).status_code)  # R: int
reveal_type(pool.check_options(timeout_ms=1))  # R: None
reveal_type(box.receive())  # R: Informational | Started | Chunk | Done | Responded | Failed

pool.get(url, headers={"Accept": "text/plain", "User-Agent": None})
pool.get(url, headers=[("Accept", "text/plain"), (b"X", b"y"), ("Z", None)])
pool.get(url, headers=katipo.Headers({"a": "b"}))
pool.get(url, cookiejar=pool.get(url).cookiejar)
pool.post(url, body=b"bytes")
pool.post(url, body=bytearray(b"bytes"))
pool.post(url, body=memoryview(b"bytes"))
pool.post(url, body="text")
pool.post(url, body={"a": "b", "c": 1, "d": None, "e": True})
pool.post(url, body={"a": ["b", "c"]})
pool.post(url, body=[("a", "b"), ("a", 2)])
pool.get(url, cacert=Path("/ca.pem"), sslcert="/c.pem", sslkey=b"/k.pem", keypasswd="x", sslversion="1.2")
pool.get(url, http_version="3-only", http_auth="digest", userpwd="u:p")
pool.get(url, proxy=None, max_response_bytes=None, decode=False)
pool.get(url, curl_options={"LOW_SPEED_TIME": 10, "RESOLVE": ["a:80:127.0.0.1"], "SSLCERT_BLOB": b"pem"})
pool.async_post(
    url,
    stream=True,
    stream_window=None,
    flow_control="auto",
    stream_body=True,
    upload_window=65536,
    on_abandon="finish",
    reply_to=box,
    ref=("any", "hashable"),
)

options: RequestOptions = {"timeout_ms": 5000, "followlocation": True}
pool.get(url, **options)
more: AsyncRequestOptions = {"stream": True, "timeout_ms": 5000}
pool.async_get(url, **more)
pool.async_get(url, **options)


def follow(message: katipo.Message) -> int:
    """Every message is one of six."""
    match message:
        case katipo.Started(_, status) | katipo.Informational(_, status):
            return status
        case katipo.Chunk(_, data):
            return len(data)
        case katipo.Done() | katipo.Responded():
            return 0
        case katipo.Failed(_, error):
            return len(error.code)


async def wait(handle: katipo.Handle) -> bytes:
    """Awaiting a handle gives its response."""
    response = await handle
    reveal_type(response)  # R: Response
    return response.content
