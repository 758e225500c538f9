"""httpbin on gunicorn, as a process of its own.

gunicorn rather than waitress: it hands a request of unknown length to the application as it is (`wsgi.input_terminated`), so
httpbin sees chunked bodies.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ServerProcess, listening_socket


@dataclass(frozen=True)
class Httpbin:
    """A running httpbin: `url` has no trailing slash."""

    process: ServerProcess
    port: int
    url: str

    def stop(self) -> None:
        """End the server. Idempotent."""
        self.process.stop()


def start_httpbin(folder: Path) -> Httpbin:
    """Start httpbin in `folder`; returns when it answers."""
    with listening_socket() as sock:
        port = int(sock.getsockname()[1])
        # Threads, not processes: one interpreter to start. 32 is more than any test keeps waiting at once.
        command = [
            sys.executable, "-W", "ignore", "-m", "gunicorn",
            "--bind", f"fd://{sock.fileno()}",
            "--worker-class", "gthread", "--workers", "1", "--threads", "32",
            "--keep-alive", "60", "--graceful-timeout", "1", "--no-control-socket",
            "httpbin:app",
        ]  # fmt: skip
        process = ServerProcess(command, folder / "httpbin.log", pass_fds=[sock.fileno()], cwd=folder)
    try:
        process.wait_http(port, "/status/204")
    except BaseException:
        process.stop()
        raise
    return Httpbin(process, port, f"http://127.0.0.1:{port}")
