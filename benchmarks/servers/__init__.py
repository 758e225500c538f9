"""Starts and stops the servers: the C origin, a TLS relay before it, and nginx for HTTP/2 where it is installed.

Every server runs on the servers' core, listens on a free port of the loopback interface, and ends with its context.
"""

import contextlib
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Generator
from dataclasses import dataclass

import trustme

from benchmarks.cores import SERVER_CORE, on_core

from . import nginx

_SOURCE = pathlib.Path(__file__).with_name("origin.c")


@dataclass(frozen=True)
class Server:
    """A base URL and the process that serves it."""

    base: str
    process: int


@dataclass(frozen=True)
class Servers:
    """The servers by kind, and the file with the authority that signed the certificates."""

    plain: Server
    tls: Server
    http2: Server | None
    authority: str


@contextlib.contextmanager
def running() -> Generator[Servers, None, None]:
    """Run every server that this machine can run; raises RuntimeError where there is no C compiler."""
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="katipo-bench-")))
        origin, origin_id = stack.enter_context(_child([str(_compile(folder))]))
        certificate = _certificate(folder)
        relay, relay_id = stack.enter_context(
            _child([sys.executable, "-m", "benchmarks.servers.tls_relay", str(origin), str(certificate)])
        )
        http2 = stack.enter_context(nginx.running(folder, certificate)) if shutil.which("nginx") else None
        yield Servers(
            plain=Server(f"http://127.0.0.1:{origin}", origin_id),
            tls=Server(f"https://127.0.0.1:{relay}", relay_id),
            http2=Server(f"https://127.0.0.1:{http2[0]}", http2[1]) if http2 else None,
            authority=str(folder / "authority.pem"),
        )


def _compile(folder: pathlib.Path) -> pathlib.Path:
    """Build the origin in `folder` and return the path of the program."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None:
        raise RuntimeError("the origin is a C program: a C compiler (cc, gcc or clang) is needed")
    program = folder / "origin"
    subprocess.run([compiler, "-O2", "-std=gnu11", "-Wall", "-Wextra", "-o", program, _SOURCE], check=True)
    return program


def _certificate(folder: pathlib.Path) -> pathlib.Path:
    """Write authority.pem and server.pem (chain and key) into `folder` and return the path of the latter."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    path = folder / "server.pem"
    authority.issue_cert("127.0.0.1", "localhost").private_key_and_cert_chain_pem.write_to_path(str(path))
    return path


@contextlib.contextmanager
def _child(command: list[str]) -> Generator[tuple[int, int], None, None]:
    """Run a server that prints its port and ends when its standard input does; yields the port and the process id."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, preexec_fn=on_core(SERVER_CORE)
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            yield int(process.stdout.readline()), process.pid
        finally:
            process.stdin.close()
