"""The routes of https://api.example.com, the server of the documentation's examples, beyond those of routes.py."""

import asyncio
import json

from tests.support.origin.app import Exchange, route

EXPORTED = 3000
"""Lines of /export: about 100 KiB, more than one piece."""


@route("/items", reads=True)
async def items(exchange: Exchange) -> None:
    """One item, or all; what is posted comes back with 201."""
    content = await exchange.read()
    path, method = str(exchange.scope["path"]), str(exchange.scope["method"])
    is_json = exchange.header("content-type") == "application/json"
    answer = {
        "path": path,
        "query": exchange.scope["query_string"].decode("latin-1"),
        "received": json.loads(content) if is_json else content.decode("latin-1"),
    }
    await exchange.answer_json(answer, 201 if method == "POST" else 200)


@route("/slow", reads=True)
async def slow(exchange: Exchange) -> None:
    """No answer before the client has gone."""
    await exchange.read()
    await asyncio.Event().wait()


@route("/export")
async def export(exchange: Exchange) -> None:
    """Lines of JSON, piece by piece."""
    await exchange.start(200, [(b"content-type", b"application/x-ndjson")])
    for first in range(0, EXPORTED, 100):
        await exchange.write(b"".join(b'{"id": %d, "name": "item %d"}\n' % (n, n) for n in range(first, first + 100)))
    await exchange.end()


@route("/events")
async def events(exchange: Exchange) -> None:
    """Three events, then a pause that only the client ends."""
    await exchange.start(200, [(b"content-type", b"text/event-stream")])
    for n in range(3):
        await exchange.write(b'data: {"event": %d}\n\n' % n)
    await asyncio.Event().wait()


@route("/moved")
async def moved(exchange: Exchange) -> None:
    """A redirect to an item."""
    await exchange.answer(302, b"it is there", [(b"location", b"/items/1")])


@route("/login")
async def login(exchange: Exchange) -> None:
    """A cookie, which /account wants."""
    await exchange.answer(200, b"hello", [(b"set-cookie", b"session=s3cret; Path=/; Secure; HttpOnly")])


@route("/account")
async def account(exchange: Exchange) -> None:
    """Whether /login's cookie came."""
    known = "session=s3cret" in exchange.header("cookie")
    await exchange.answer_json({"name": "katipo" if known else None}, 200 if known else 401)


@route("/private", reads=True)
async def private(exchange: Exchange) -> None:
    """For those who show a key that has not run out."""
    if exchange.header("x-api-key") == "renewed":
        await exchange.answer(200, b"come in")
    else:
        await exchange.answer(401, b"the key has run out")
