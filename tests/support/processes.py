"""Server processes: found or reported missing, started, watched until ready, stopped.

Ports are picked free and handed over as open sockets where the server can take one; nginx and Caddy cannot, so for these a
port that somebody else took in between makes the start fail, and the caller tries again with other ports.
"""

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

# A loaded two-core machine needs a few seconds for an interpreter with all imports; beyond this something is broken.
START_TIMEOUT = 60.0
STOP_TIMEOUT = 10.0


def servers_required() -> bool:
    """Whether a missing server fails the test instead of skipping it."""
    return any(os.environ.get(name, "") not in ("", "0") for name in ("CI", "KATIPO_REQUIRE_SERVERS"))


def require_program(*names: str) -> str:
    """The path of an installed program, the first of `names` that there is; without one the test that asks is skipped,
    or fails where servers are required."""
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/usr/local/sbin"])
    for name in names:
        if found := shutil.which(name, path=path):
            return found
    raise missing(names[0])


def require_file(name: str, folders: Sequence[str]) -> Path:
    """The path of an installed file, from the first of `folders` that has it; else as in `require_program`."""
    for folder in folders:
        if (path := Path(folder) / name).exists():
            return path
    raise missing(name)


def missing(name: str) -> BaseException:
    """What a test raises that asks for what is not installed."""
    reason = f"{name} is not installed"
    if servers_required():
        return pytest.fail.Exception(f"{reason}, and CI or KATIPO_REQUIRE_SERVERS is set")
    return pytest.skip.Exception(reason)


def listening_socket(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """A listening TCP socket on a free port."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(1024)
    except OSError:
        sock.close()
        raise
    return sock


def paired_sockets(host: str = "127.0.0.1") -> tuple[socket.socket, socket.socket]:
    """A listening TCP socket and a UDP socket on one free port number."""
    for _ in range(50):
        tcp = listening_socket(host)
        udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            udp.bind((host, tcp.getsockname()[1]))
        except OSError:
            tcp.close()
            udp.close()
            continue
        # A burst of datagrams from a client on the same host must not be lost for want of room: the suites measure the
        # client's behaviour, not a loss recovery.
        udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        return tcp, udp
    raise OSError("no port number is free for both TCP and UDP")


def free_ports(count: int, *, udp: bool = False) -> list[int]:
    """Port numbers that were free a moment ago: all held at once, so all different, then let go together."""
    with contextlib.ExitStack() as held:
        ports = []
        for _ in range(count):
            if udp:
                tcp, other = paired_sockets()
                held.enter_context(other)
            else:
                tcp = listening_socket()
            held.enter_context(tcp)
            ports.append(int(tcp.getsockname()[1]))
    return ports


class ServerProcess:
    """A server in a process of its own, with its output in a log file for when it fails."""

    def __init__(
        self,
        command: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        pass_fds: Sequence[int] = (),
        cwd: Path | None = None,
    ) -> None:
        self.name = Path(command[0]).name
        self._log = log
        with log.open("ab") as output:
            # A session of its own, so that the terminal's Ctrl-C reaches the tests first and they stop the server.
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                pass_fds=pass_fds,
                cwd=cwd,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def output(self) -> str:
        """What the server has written so far."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def check(self) -> None:
        """Raise RuntimeError with the server's output if it has ended."""
        if self._process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with status {self._process.returncode}:\n{self.output()[-4000:]}")

    def wait_http(self, port: int, path: str = "/", timeout: float = START_TIMEOUT) -> None:
        """Return when the server answers HTTP on `port`, whatever the status."""

        def answers() -> bool:
            self.check()
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
            try:
                connection.request("GET", path)
                connection.getresponse().read()
            except OSError:
                return False
            finally:
                connection.close()
            return True

        wait_until(answers, timeout, f"{self.name} does not answer on port {port}")

    def stop(self) -> None:
        """Ask the server to end, then make it. Idempotent."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait()
