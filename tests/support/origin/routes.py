"""The routes of the application. README.md in tests/support lists them with their arguments."""

import asyncio
import base64
import functools
import hashlib
import zlib
from collections.abc import Callable
from urllib.parse import unquote_to_bytes

import brotli  # type: ignore[import-untyped]

from tests.support.origin.app import Exchange, Handler, route
from tests.support.origin.streams import RawHeaders
from tests.support.pattern import pattern

PIECE = 65536
OCTETS: tuple[bytes, bytes] = (b"content-type", b"application/octet-stream")


def strict_only(handler: Handler) -> Handler:
    """Answer 501 where the front end is hypercorn's."""

    @functools.wraps(handler)
    async def checked(exchange: Exchange) -> None:
        if exchange.strict:
            await handler(exchange)
        else:
            await exchange.read()
            await exchange.answer(501, b"on the strict front ends only")

    return checked


@route("/", "/count")
async def count(exchange: Exchange) -> None:
    """How often this id was executed."""
    await exchange.read()
    await exchange.answer_json({"id": exchange.query.get("id"), "count": exchange.entry.count})


@route("/echo", reads=True)
async def echo(exchange: Exchange) -> None:
    """Send back what comes, as it comes."""
    await exchange.start(200, [OCTETS])
    async for piece in exchange.pieces():
        await exchange.write(piece)
    await exchange.end()


@route("/upload", "/slow-upload", reads=True)
async def upload(exchange: Exchange) -> None:
    """Read the body, as slowly as asked for, and say what it was."""
    default_rate = 65536 if exchange.scope["path"] == "/slow-upload" else 0
    rate = exchange.number("rate", default_rate)
    gate, every = exchange.query.get("gate"), exchange.number("every", PIECE)
    allowed = exchange.number("first")
    digest, length, pieces = hashlib.sha256(), 0, 0
    if gate and not allowed:
        await exchange.state.pass_gate(gate)
        allowed += every
    async for piece in exchange.pieces():
        digest.update(piece)
        length += len(piece)
        pieces += 1
        while gate and length >= allowed:
            await exchange.state.pass_gate(gate)
            allowed += every
        if rate:
            await asyncio.sleep(len(piece) / rate)
    await exchange.answer_json(
        {
            "length": length,
            "sha256": digest.hexdigest(),
            "pieces": pieces,
            "method": exchange.scope["method"],
            "headers": _header_pairs(exchange),
        }
    )


@route("/drip")
async def drip(exchange: Exchange) -> None:
    """A few pieces, each when its time or its permit has come."""
    size = exchange.number("size", 1)
    await exchange.start(200, [OCTETS])
    for index in range(exchange.number("n", 1)):
        await _pace(exchange)
        await exchange.write(pattern(index * size, size))
    await exchange.end()


@route("/big")
async def big(exchange: Exchange) -> None:
    """A large body, as fast as it is taken."""
    size = exchange.number("size", 1 << 20)
    headers = [OCTETS]
    if not exchange.number("chunked"):
        headers.append((b"content-length", b"%d" % size))
    await exchange.start(200, headers)
    make = _filler(exchange)
    for offset in range(0, size, PIECE):
        await exchange.write(make(offset, min(PIECE, size - offset)))
    await exchange.end()


@route("/coded")
async def coded(exchange: Exchange) -> None:
    """A compressed body, compressed on the way."""
    coding = exchange.query.get("coding", "gzip")
    size = exchange.number("size", 1024)
    make = _filler(exchange)
    compress, finish = _compressor(coding)
    await exchange.start(200, [OCTETS, (b"content-encoding", coding.encode())])
    # A bomb is the same piece over and over: larger steps, or its making takes longer than the test.
    step = 16 * PIECE
    for offset in range(0, size, step):
        data = compress(make(offset, min(step, size - offset)))
        if data:
            await exchange.write(data)
        await asyncio.sleep(0)  # other exchanges share this loop
    await exchange.end(finish())


@route("/status")
async def status(exchange: Exchange) -> None:
    """Any final status."""
    await exchange.read()
    code = int(exchange.rest)
    if exchange.strict and "reason" in exchange.query:
        exchange.scope["katipo"]["reason"] = exchange.query["reason"].encode()
    await exchange.answer(code, b"" if code in (205,) else b"status %d" % code)


@route("/early", reads=True)
async def early(exchange: Exchange) -> None:
    """Answer before the body has been read."""
    await _early(exchange, int(exchange.rest), [])


@route("/early-413", "/early-200", "/early-401", reads=True)
async def early_short(exchange: Exchange) -> None:
    """The same, by name."""
    code = int(str(exchange.scope["path"]).rpartition("-")[2])
    headers = [(b"www-authenticate", b'Basic realm="early"')] if code == 401 else []
    await _early(exchange, code, headers)


@route("/redirect", "/redirect-307", reads=True)
async def redirect(exchange: Exchange) -> None:
    """A redirect, before the body has been read or after it."""
    code = int(exchange.rest or 307)
    location = [(b"location", exchange.query.get("to", "/count").encode())]
    if exchange.query.get("read") == "all" or exchange.scope["method"] in ("GET", "HEAD"):
        await exchange.read()
        await exchange.answer(code, b"elsewhere", location)
    else:
        await _early(exchange, code, location)


@route("/basic", reads=True)
async def basic(exchange: Exchange) -> None:
    """HTTP Basic authentication."""
    user, password = exchange.query.get("user", "user"), exchange.query.get("password", "secret")
    wanted = "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    await _authenticated(exchange, exchange.header("authorization") == wanted, b'Basic realm="katipo"')


@route("/digest", reads=True)
async def digest(exchange: Exchange) -> None:
    """HTTP Digest authentication (RFC 7616), with one nonce for ever."""
    user, password = exchange.query.get("user", "user"), exchange.query.get("password", "secret")
    qop, algorithm = exchange.query.get("qop", "auth"), exchange.query.get("algorithm", "MD5")
    challenge = f'Digest realm="katipo", nonce="0123456789abcdef", algorithm={algorithm}'
    if qop == "auth":
        challenge += ', qop="auth"'
    given = _digest_fields(exchange.header("authorization"))
    hashed = {"MD5": _md5, "SHA-256": _sha256}[algorithm.removesuffix("-sess")]
    first = hashed(f"{user}:katipo:{password}")
    if algorithm.endswith("-sess"):
        first = hashed(f"{first}:0123456789abcdef:{given.get('cnonce')}")
    second = hashed(f"{exchange.scope['method']}:{given.get('uri', '')}")
    middle = f"{given.get('nc')}:{given.get('cnonce')}:auth:" if qop == "auth" else ""
    wanted = hashed(f"{first}:0123456789abcdef:{middle}{second}")
    right = given.get("username") == user and given.get("response") == wanted
    await _authenticated(exchange, right, challenge.encode())


@route("/headers")
async def headers(exchange: Exchange) -> None:
    """The request as it arrived, without its body."""
    await exchange.read()
    await exchange.answer_json(
        {
            "headers": _header_pairs(exchange),
            "method": exchange.scope["method"],
            "http_version": exchange.version,
            "path": exchange.scope["path"],
            "query": exchange.scope["query_string"].decode("latin-1"),
            "client": list(exchange.scope["client"] or ()),
        }
    )


@route("/set-headers")
async def set_headers(exchange: Exchange) -> None:
    """Response headers as asked for, in that order, repeated ones too."""
    await exchange.answer(200, b"headers", _query_pairs(exchange, lower=True))


@route("/cookies")
async def cookies(exchange: Exchange) -> None:
    """Cookies received, set, deleted."""
    if exchange.rest in ("set", "delete"):
        path = exchange.query.get("path", "/")
        age = 0 if exchange.rest == "delete" else exchange.number("max_age", -1)
        attributes = f"; Path={path}" + (f"; Max-Age={age}" if age >= 0 else "")
        lines: RawHeaders = [
            (b"set-cookie", name + b"=" + value + attributes.encode())
            for name, value in _query_pairs(exchange)
            if name not in (b"path", b"max_age", b"id")
        ]
        await exchange.answer(200, b"cookies", lines)
        return
    pairs = [item.strip().partition("=") for item in exchange.header("cookie").split(";") if item.strip()]
    await exchange.answer_json({"cookies": {name: value for name, _, value in pairs}})


@route("/trailers")
async def trailers(exchange: Exchange) -> None:
    """A body and trailers."""
    names = range(1, exchange.number("n", 2) + 1)
    fields = [(b"x-trailer-%d" % index, b"value-%d" % index) for index in names]
    await exchange.start(200, [OCTETS, (b"trailer", b", ".join(name for name, _ in fields))], trailers=True)
    await exchange.write(pattern(0, exchange.number("size", 10)))
    await exchange.end(trailers=fields)


@route("/interim")
@strict_only
async def interim(exchange: Exchange) -> None:
    """Informational blocks before the final one."""
    for index in range(exchange.number("n", 1)):
        await exchange.send(
            {
                "type": "katipo.interim",
                "status": exchange.number("status", 103),
                "headers": [(b"link", b"</style-%d.css>; rel=preload" % index)],
            }
        )
    await exchange.answer(200, b"final", [(b"x-final", b"yes")])


@route("/sse")
async def sse(exchange: Exchange) -> None:
    """Server-sent events: the headers at once, an event at its time or permit."""
    await exchange.start(200, [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store")])
    for index in range(exchange.number("n", 1)):
        await _pace(exchange)
        await exchange.write(b"id: %d\ndata: event %d\n\n" % (index, index))
    await exchange.end()


@route("/hang", reads=True)
async def hang(exchange: Exchange) -> None:
    """Never answer, or never go on."""
    if exchange.query.get("stage") == "body":
        await exchange.start(200, [OCTETS])
        await exchange.write(pattern(0, exchange.number("size", 1)))
    await exchange.read()
    await asyncio.Event().wait()  # cut off when the client goes


@route("/reset-mid-body")
@strict_only
async def reset_mid_body(exchange: Exchange) -> None:
    """Part of the body, then a reset."""
    await _part(exchange)
    await exchange.send({"type": "katipo.reset"})


@route("/cut-mid-body")
@strict_only
async def cut_mid_body(exchange: Exchange) -> None:
    """Part of the body, then the connection closes."""
    await _part(exchange)
    await exchange.send({"type": "katipo.close"})


@route("/refuse", reads=True)
@strict_only
async def refuse(exchange: Exchange) -> None:
    """Refuse the first requests as unprocessed."""
    if exchange.entry.count <= exchange.number("times", 1):
        await exchange.send({"type": "katipo.refuse"})
    else:
        await count(exchange)


@route("/drop", reads=True)
@strict_only
async def drop(exchange: Exchange) -> None:
    """Close the connection under the first requests."""
    if exchange.entry.count <= exchange.number("times", 1):
        if exchange.query.get("read", "all") == "all":
            await exchange.read()
        await exchange.send({"type": "katipo.close"})
    else:
        await count(exchange)


@route("/goaway")
@strict_only
async def goaway(exchange: Exchange) -> None:
    """The last request of its connection."""
    await exchange.send({"type": "katipo.goaway"})
    await count(exchange)


async def _early(exchange: Exchange, code: int, headers: RawHeaders) -> None:
    how = exchange.query.get("how", "stop")
    limit = exchange.number("read")
    if limit:
        async for _ in exchange.pieces(limit):
            pass
    if not exchange.strict:
        # hypercorn fails with a KeyError on a piece of a body that comes after the response; over HTTP/3 that ends its whole
        # QUIC server.
        await exchange.read()
    if how != "drain" and exchange.version.startswith("1"):
        headers = [*headers, (b"connection", b"close")]
    await exchange.answer(code, b"early", headers)
    if how == "drain":
        await exchange.read()
    elif how in ("close", "reset") and exchange.strict:
        await exchange.send({"type": f"katipo.{how}"})


async def _authenticated(exchange: Exchange, right: bool, challenge: bytes) -> None:
    if right:
        await exchange.answer(200, await exchange.read())
    elif exchange.number("early"):
        await _early(exchange, 401, [(b"www-authenticate", challenge)])
    else:
        await exchange.read()
        await exchange.answer(401, b"not you", [(b"www-authenticate", challenge)])


async def _part(exchange: Exchange) -> None:
    size, sent = exchange.number("size", 1 << 20), exchange.number("sent", 1024)
    chunked = exchange.number("chunked")
    await exchange.start(200, [OCTETS] if chunked else [OCTETS, (b"content-length", b"%d" % size)])
    if sent:
        await exchange.write(pattern(0, sent))
    if "gate" in exchange.query:
        await exchange.state.pass_gate(exchange.query["gate"])


async def _pace(exchange: Exchange) -> None:
    if "gate" in exchange.query:
        await exchange.state.pass_gate(exchange.query["gate"])
    delay = exchange.seconds("delay")
    if delay:
        await asyncio.sleep(delay)


def _filler(exchange: Exchange) -> Callable[[int, int], bytes]:
    if exchange.query.get("fill") == "zero":
        return lambda _, size: bytes(size)
    return pattern


def _compressor(coding: str) -> tuple[Callable[[bytes], bytes], Callable[[], bytes]]:
    if coding == "br":
        compressor = brotli.Compressor(quality=1)
        return compressor.process, compressor.finish
    # "deflate" is the zlib format (RFC 9110 8.4.1.2).
    deflater = zlib.compressobj(6, zlib.DEFLATED, 31 if coding == "gzip" else 15)
    return deflater.compress, deflater.flush


def _header_pairs(exchange: Exchange) -> list[tuple[str, str]]:
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in exchange.scope["headers"]]


def _query_pairs(exchange: Exchange, *, lower: bool = False) -> RawHeaders:
    pairs = [item.partition("=") for item in exchange.scope["query_string"].decode().split("&") if item]
    return [
        (unquote_to_bytes(name).lower() if lower else unquote_to_bytes(name), unquote_to_bytes(value))
        for name, _, value in pairs
    ]


def _digest_fields(header: str) -> dict[str, str]:
    kind, _, fields = header.partition(" ")
    if kind.lower() != "digest":
        return {}
    pairs = [item.strip().partition("=") for item in fields.split(",")]
    return {name: value.strip('"') for name, _, value in pairs}


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
