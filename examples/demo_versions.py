"""A server for HTTP/1.1, HTTP/2 and HTTP/3 over TLS on one port: hypercorn, with certificates of its own CA.

Needs the packages of the group `demo`. `GET /` answers which version it was asked in, after a 103 (Early Hints) where
hypercorn can send one. Prints "ready", and runs until standard input is closed.
"""

import asyncio
import contextlib
import importlib
import pathlib
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Generator
from typing import Any

HINT = b"</style.css>; rel=preload"


async def _application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await receive()
    if "http.response.early_hint" in scope.get("extensions", {}):
        await send({"type": "http.response.early_hint", "links": [HINT]})
    body = b"HTTP/%b" % scope["http_version"].encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
    await send({"type": "http.response.body", "body": body})


async def _main(tcp: str, udp: str, cert: str, key: str) -> None:
    hypercorn: Any = importlib.import_module("hypercorn.asyncio")
    config: Any = importlib.import_module("hypercorn.config").Config()
    config.bind, config.quic_bind = [f"fd://{tcp}"], [f"fd://{udp}"]
    config.certfile, config.keyfile = cert, key
    config.loglevel = "CRITICAL"
    ended = asyncio.Event()
    asyncio.get_running_loop().add_reader(sys.stdin.fileno(), ended.set)
    print("ready", flush=True)
    await hypercorn.serve(_application, config, shutdown_trigger=ended.wait)


@contextlib.contextmanager
def running() -> Generator[tuple[str, str], None, None]:
    """Run the server in a child process; yields its base URL and the path of its CA. ImportError without the group."""
    for name in ("hypercorn.asyncio", "h2", "aioquic"):
        importlib.import_module(name)
    import trustme

    with tempfile.TemporaryDirectory() as folder:
        authority = trustme.CA()
        issued = authority.issue_cert("localhost")
        paths = [pathlib.Path(folder, name) for name in ("ca.pem", "cert.pem", "key.pem")]
        authority.cert_pem.write_to_path(paths[0])
        issued.cert_chain_pems[0].write_to_path(paths[1])
        issued.private_key_pem.write_to_path(paths[2])
        with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(type=socket.SOCK_DGRAM) as udp:
            udp.bind(tcp.getsockname())
            numbers = [tcp.fileno(), udp.fileno()]
            command = [sys.executable, __file__, *map(str, numbers), str(paths[1]), str(paths[2])]
            with subprocess.Popen(command, pass_fds=numbers, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
                assert process.stdin is not None
                assert process.stdout is not None
                try:
                    if process.stdout.readline() != b"ready\n":
                        raise RuntimeError("the server for HTTP/2 and 3 did not start")
                    yield f"https://localhost:{tcp.getsockname()[1]}", str(paths[0])
                finally:
                    process.stdin.close()
                    process.terminate()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt, asyncio.CancelledError, ssl.SSLError):
        asyncio.run(_main(*sys.argv[1:]))
