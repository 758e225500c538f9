"""The origin's process: one application on hypercorn and on the strict front ends, in one event loop.

Run as `python -m tests.support.origin.serve SETTINGS`, with a JSON object: descriptors of open sockets `http`, `https`,
`quic`, `strict_http`, `strict_https`, `strict_quic`, paths `cert` and `key`. Writes a line "ready" when all of them serve.
"""

import asyncio
import json
import signal
import socket
import ssl
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, cast

import hypercorn.asyncio
import hypercorn.config

from tests.support.certs import Certificate
from tests.support.origin import documented as documented  # registered by being imported
from tests.support.origin import routes as routes
from tests.support.origin.app import Application
from tests.support.origin.h1 import Http1Connection
from tests.support.origin.h2 import Http2Connection
from tests.support.origin.h3 import make_server

# The first bytes of an HTTP/2 connection (RFC 9113 3.4); no HTTP/1 request starts with them.
PREFACE = b"PRI"


async def main(settings: dict[str, Any]) -> None:
    """Serve until SIGTERM."""
    app = Application()
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    certificate = Certificate(Path(settings["cert"]), Path(settings["key"]), Path(settings["cert"]))
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate.cert, certificate.key)
    context.set_alpn_protocols(["h2", "http/1.1"])

    secure = await asyncio.start_server(_accept(app, secure=True), sock=_adopt(settings["strict_https"]), ssl=context)
    plain = await asyncio.start_server(_accept(app, secure=False), sock=_adopt(settings["strict_http"]))
    quic, _ = await loop.create_datagram_endpoint(
        make_server(app, certificate), sock=_adopt(settings["strict_quic"], socket.SOCK_DGRAM)
    )
    second = asyncio.create_task(_hypercorn(app, settings, certificate, stop))

    print("ready", flush=True)
    await stop.wait()
    for server in (secure, plain):
        server.close()
    quic.close()
    await second


def _accept(
    app: Application, *, secure: bool
) -> Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first = await reader.read(65536)
        except OSError:
            first = b""
        if not first:
            writer.close()
            return
        kind = Http2Connection if first.startswith(PREFACE) else Http1Connection
        await kind(app, reader, writer, secure=secure, first=first).serve()

    return serve


async def _hypercorn(app: Application, settings: dict[str, Any], certificate: Certificate, stop: asyncio.Event) -> None:
    config = hypercorn.config.Config()
    config.bind = [f"fd://{settings['https']}"]
    config.insecure_bind = [f"fd://{settings['http']}"]
    config.quic_bind = [f"fd://{settings['quic']}"]
    config.certfile = str(certificate.cert)
    config.keyfile = str(certificate.key)
    config.graceful_timeout = 0.1
    config.keep_alive_timeout = 60
    config.errorlog = "-"
    config.loglevel = "WARNING"
    await hypercorn.asyncio.serve(cast(Any, app), config, shutdown_trigger=stop.wait)


def _adopt(descriptor: int, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    sock = socket.socket(socket.AF_INET, kind, fileno=descriptor)
    sock.setblocking(False)
    return sock


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
