"""User code that type checkers must accept, and what they make of it. Read by test_typing.py, never run."""

# ruff: noqa: F821, SIM115  (reveal_type needs no import to be understood; nothing is opened)

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator
from pathlib import Path

from typing_extensions import Unpack

import katipo
from katipo import AsyncClientOptions, AsyncRequestOptions, ClientOptions, RequestOptions, testing

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
pool.post(url, body={"a": ["b", "c"], "d": 1, "e": "f"})
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


# ------------------------------------------------------------------------------------------------ clients

client = katipo.Client(
    base_url=url,
    headers={"X-Team": "spiders", "User-Agent": None},
    params={"page": 1},
    cookies={"a": "b"},
    auth=("user", "password"),
    timeout=katipo.Timeout(5.0, total=30.0),
    limits=katipo.Limits(max_connections=10),
    verify=Path("/ca.pem"),
    cert=("/c.pem", Path("/k.pem"), "password"),
    tls=katipo.TLS("1.3", pinned_public_keys=["sha256//..."]),
    proxy="http://proxy",
    trust_env=False,
    http3=True,
    follow_redirects=True,
    event_hooks={"request": [print], "response": [], "informational": [print]},
    max_response_bytes=None,
    curl_options={"TCP_NODELAY": True},
)
reveal_type(client)  # R: Client
reveal_type(client.get("/items"))  # R: Response
reveal_type(client.request("GET", url, params=[("a", 1)]))  # R: Response
reveal_type(client.get(url).history)  # R: list[Response]
reveal_type(client.get(url).url)  # R: URL
reveal_type(client.get(url).raise_for_status().text)  # R: str
reveal_type(client.headers)  # R: Headers
reveal_type(client.cookies)  # R: Cookies
reveal_type(client.timeout)  # R: Timeout
reveal_type(client.auth)  # R: Auth | None
reveal_type(client.is_closed)  # R: bool
reveal_type(client.close())  # R: None
reveal_type(katipo.get("https://example.com/", verify=False))  # R: Response
reveal_type(katipo.post("https://example.com/", json=[1, "two", None], http3=True))  # R: Response
reveal_type(testing.FakePool(lambda request: katipo.Response(200)))  # R: FakePool

client.headers = {"A": "b"}
client.cookies = None
client.timeout = 3
client.timeout = (1.0, 2.0, 3.0, None)
client.auth = katipo.BearerAuth("token")
client.auth = lambda request: request
client.base_url = "https://example.com/"

client.post(url, content=b"bytes")
client.post(url, content="text")
client.post(url, content=Path("file"))
client.post(url, content=Path("file").open("rb"))
client.post(url, content=[b"a", bytearray(b"b")])
client.post(url, content=(b"%d" % n for n in range(3)))
client.get(url, params={"a": 1, "b": ["c", "d"], "e": None, "f": "g", "h": True})
client.get(url, params=[("a", 1), ("a", "b")])
client.get(url, params={"a": 1}.items())
client.post(url, data={"a": "b", "c": ["d", "e"], "f": 1})
client.post(url, data=[("a", "b"), ("a", "c")])
client.post(url, data=(("a", n) for n in range(3)))
client.post(
    url, files={"a": b"bytes", "b": ("name.txt", Path("file").open("rb")), "c": ("c.txt", "text", "text/plain")}
)
client.post(url, json={"any": ["thing"]})
client.get(url, headers=[("A", "b"), ("C", None)], cookies=[("a", "b")], auth=None, timeout=None, proxy="")
client.get(url, timeout=(1, 5))
client.get(url, timeout=(1.0, None, 5.0))
client.get(url, timeout=0.5, follow_redirects=True, max_response_bytes=1 << 20, decode=False)

with client.stream("GET", url) as streamed:
    reveal_type(streamed)  # R: StreamingResponse
    reveal_type(streamed.status_code)  # R: int
    reveal_type(streamed.iter_raw())  # R: Iterator[bytes]
    reveal_type(streamed.iter_bytes(chunk_size=1024))  # R: Iterator[bytes]
    reveal_type(streamed.iter_text())  # R: Iterator[str]
    reveal_type(streamed.iter_lines())  # R: Iterator[str]
    reveal_type(streamed.read())  # R: bytes
    reveal_type(streamed.trailers)  # R: Headers
    reveal_type(streamed.metrics)  # R: Metrics

with katipo.stream("GET", "https://example.com/", timeout=3) as streamed_once:
    reveal_type(streamed_once)  # R: StreamingResponse

with client.exchange("POST", url, headers={"A": "b"}, timeout=None) as exchange:
    reveal_type(exchange)  # R: Exchange
    reveal_type(exchange.send(b"piece"))  # R: None
    reveal_type(exchange.finish())  # R: None
    reveal_type(exchange.response())  # R: StreamingResponse

reveal_type(client.download(url, "file", sha256=True, timeout=None))  # R: Download
reveal_type(client.download(url, Path("file"), progress=lambda so_far, total: None).path)  # R: Path
reveal_type(client.download_many([url, "https://example.com/"], "folder"))  # R: list[Download | Error | OSError]
client.download_many({"https://example.com/": "name"}, Path("folder"), concurrency=2, resume=False)

with katipo.Client(pool=pool) as entered:
    reveal_type(entered)  # R: Client


def call(**options: Unpack[ClientOptions]) -> katipo.Response:
    """Options can be handed on."""
    return client.get("https://example.com/", **options)


def sync_pieces() -> Iterator[bytes]:
    """A body."""
    yield b"piece"


async def async_pieces() -> AsyncIterator[bytes]:
    """A body of an asynchronous client."""
    yield b"piece"


async def stamp(request: katipo.Request) -> None:
    """A hook of an asynchronous client."""
    request.headers["A"] = "b"


async def clients() -> None:
    """What an asynchronous client returns."""
    async with katipo.AsyncClient(event_hooks={"request": [stamp, print]}) as session:
        reveal_type(session)  # R: AsyncClient
        reveal_type(await session.get("/items"))  # R: Response
        reveal_type(await session.post(url, content=async_pieces()))  # R: Response
        await session.post(url, content=sync_pieces())
        shared: AsyncClientOptions = {"timeout": 3.0, "json": {"a": 1}}
        await session.post(url, **shared)
        async with session.stream("GET", url) as response:
            reveal_type(response)  # R: AsyncStreamingResponse
            reveal_type(response.aiter_bytes())  # R: AsyncIterator[bytes]
            reveal_type(response.aiter_lines())  # R: AsyncIterator[str]
            reveal_type(await response.aread())  # R: bytes
            async for line in response.aiter_lines():
                reveal_type(line)  # R: str
        async with session.exchange("POST", url) as exchange:
            reveal_type(exchange)  # R: AsyncExchange
            reveal_type(await exchange.send(memoryview(b"piece")))  # R: None
            reveal_type(exchange.finish())  # R: None
            reveal_type(await exchange.response())  # R: AsyncStreamingResponse
        reveal_type(await session.download(url, "file", resume=False))  # R: Download
        reveal_type(await session.download_many([url], "folder"))  # R: list[Download | Error | OSError]
        reveal_type(await session.aclose())  # R: None


class OwnAuth(katipo.Auth):
    """A scheme of one's own."""

    def auth_flow(self, request: katipo.Request) -> Generator[katipo.Request, katipo.Response, None]:
        """Send, and look at the answer."""
        response = yield request
        reveal_type(response)  # R: Response


client.get(url, auth=OwnAuth())
