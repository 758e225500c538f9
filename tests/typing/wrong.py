"""User code that type checkers must refuse, at the marked lines and nowhere else. Read by test_typing.py, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator

import katipo
from katipo import ClientOptions, RequestOptions

pool = katipo.Pool()
url = "https://example.com/"

pool.get(url, timeout=5)  # E
pool.get(url, follow_redirects=True)  # E
pool.get(url, data={"a": "b"})  # E
pool.get(url, verify=False)  # E
pool.get(url, stream=True)  # E
pool.get(url, stream_body=True)  # E
pool.get(url, reply_to=None)  # E
pool.get(url, ref=1)  # E
pool.get(url, timeout_ms="5000")  # E
pool.get(url, timeout_ms=1.5)  # E
pool.get(url, timeout_ms=None)  # E
pool.get(url, followlocation="yes")  # E
pool.get(url, http_version="4")  # E
pool.get(url, http_version=2)  # E
pool.get(url, http_auth="bearer")  # E
pool.get(url, headers={"A": 1})  # E
pool.get(url, headers="A: b")  # E
pool.get(url, cookiejar={"a": "b"})  # E
pool.get(url, cacert=5)  # E
pool.get(url, proxy=b"http://h")  # E
pool.get(url, curl_options={"LOW_SPEED_TIME": 1.5})  # E
pool.post(url, body=5)  # E
pool.get(5)  # E
pool.async_get(url, flow_control="off")  # E
pool.async_get(url, on_abandon="drop")  # E
pool.async_get(url, reply_to="box")  # E
pool.async_get(url, ref=[])  # E
pool.async_get(url, steam=True)  # E
pool.check_options(timeout=5)  # E
options: RequestOptions = {"timeout": 5}  # E
more: RequestOptions = {"stream": True}  # E
katipo.Pool(1, True)  # E
katipo.Pool(max_connections=5)  # E

client = katipo.Client()
asynchronous = katipo.AsyncClient()


async def pieces() -> AsyncIterator[bytes]:
    """A body that a blocking client cannot send."""
    yield b"piece"


katipo.Client(timout=5)  # E
katipo.Client("https://example.com/")  # E
katipo.Client(transport=None)  # E
katipo.Client(http2="yes")  # E
katipo.Client(timeout="5")  # E
katipo.Client(limits={"max_connections": 5})  # E
katipo.Client(event_hooks={"respond": []})  # E
katipo.Client(cookies="a=b")  # E
katipo.Client(pool=client)  # E
client.get(url, timeot=5)  # E
client.get(url, allow_redirects=True)  # E
client.get(url, verify=False)  # E
client.get(url, stream=True)  # E
client.get(url, timeout_ms=5000)  # E
client.get(url, params=5)  # E
client.get(url, headers={"A": 1})  # E
client.get(url, auth="user:password")  # E
client.get(url, proxy=5)  # E
client.get(url, max_response_bytes="1 MiB")  # E
client.post(url, content=pieces())  # E
client.post(url, content=5)  # E
client.post(url, content=["text"])  # E
client.post(url, files=b"bytes")  # E
client.get(b"https://example.com/")  # E
client.stream(url)  # E
client.stream("GET", url, body=b"")  # E
client.exchange("POST", url, content=b"bytes")  # E
client.exchange("POST", url, follow_redirects=True)  # E
client.build_request("GET", url)  # E
client.aclose()  # E
asynchronous.close()  # E
asynchronous.get(url).json()  # E
asynchronous.get(url, timeot=5)  # E
katipo.get(url, base_url=url)  # E
katipo.get(url, timeot=5)  # E
katipo.Timeout(5, total="x")  # E
katipo.Timeout(all=5)  # E
katipo.Limits(100)  # E
katipo.TLS(1.2)  # E
katipo.BearerAuth(5)  # E
arguments: ClientOptions = {"timeot": 5}  # E
with client.stream("GET", url) as streamed:
    streamed.aiter_bytes()  # E
    streamed.read(5)  # E
with client.exchange("POST", url) as exchange:
    exchange.send("text")  # E
    exchange.finish(b"last")  # E
