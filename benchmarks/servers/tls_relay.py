"""A TLS relay before the origin, in plain Python: `python -m benchmarks.servers.tls_relay ORIGIN_PORT CERTIFICATE`.

Not fast, and not meant for measurements of speed: for what must work where there is no nginx. Prints its port and runs
until standard input is closed.
"""

import asyncio
import contextlib
import functools
import os
import ssl
import sys


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    writer.close()


async def _relay(origin: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    from_origin, to_origin = await asyncio.open_connection("127.0.0.1", origin)
    await asyncio.gather(_pump(reader, to_origin), _pump(from_origin, writer))


async def _main(origin: int, certificate: str) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = await asyncio.start_server(
        functools.partial(_relay, origin), "127.0.0.1", 0, ssl=context, backlog=4096, ssl_handshake_timeout=60
    )
    print(server.sockets[0].getsockname()[1], flush=True)
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    await ended.wait()
    os._exit(0)  # a thousand connections' tasks need not be cancelled one by one


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1]), sys.argv[2]))
