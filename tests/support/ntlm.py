"""A small HTTP/1.1 server that wants NTLM, with pyspnego's acceptor behind it: an implementation of its own.

Run as `python -m tests.support.ntlm PORT_DESCRIPTOR`, with the users in the file that NTLM_USER_FILE names. A connection is
authenticated once and stays so, as IIS has it. Every answer is JSON about the connection, see `Connection`.
"""

import base64
import hashlib
import http.server
import json
import socket
import socketserver
import sys
from dataclasses import dataclass
from pathlib import Path

from tests.support.processes import ServerProcess, listening_socket

ROOT = Path(__file__).parents[2]
DOMAIN = "KATIPO"
USERS = {"ann": "ann's secret", "bob": "bob's sécret"}


@dataclass(frozen=True)
class NtlmServer:
    """A running server. Users are those of USERS, in DOMAIN."""

    process: ServerProcess
    url: str

    def stop(self) -> None:
        """End the server. Idempotent."""
        self.process.stop()


def start_ntlm(folder: Path) -> NtlmServer:
    """Start the server."""
    users = folder / "users"
    users.write_text("".join(f"{DOMAIN}:{name}:{password}\n" for name, password in USERS.items()), encoding="utf-8")
    with listening_socket() as sock:
        port = int(sock.getsockname()[1])
        process = ServerProcess(
            [sys.executable, "-m", "tests.support.ntlm", str(sock.fileno())],
            folder / "ntlm.log",
            pass_fds=[sock.fileno()],
            cwd=ROOT,
            env={"NTLM_USER_FILE": str(users)},
        )
    try:
        process.wait_http(port)
    except BaseException:
        process.stop()
        raise
    return NtlmServer(process, f"http://localhost:{port}")


class Connection(http.server.BaseHTTPRequestHandler):
    """One connection. Answers: `user` (None: nobody), `port` of the client, `requests` so far, `bodies`: the lengths of
    their bodies, `sha256` of this one's."""

    protocol_version = "HTTP/1.1"

    def setup(self) -> None:
        import spnego

        super().setup()
        self.context: spnego.ContextProxy | None = None
        self.user: str | None = None
        self.bodies: list[int] = []

    def do_GET(self) -> None:
        """Answer any method alike."""
        self._serve()

    def do_POST(self) -> None:
        """As GET."""
        self._serve()

    def _serve(self) -> None:
        body = self._read_body()
        self.bodies.append(len(body))
        challenge = self._authenticate()
        answer = {
            "user": self.user,
            "port": self.client_address[1],
            "requests": len(self.bodies),
            "bodies": self.bodies,
            "sha256": hashlib.sha256(body).hexdigest(),
        }
        content = json.dumps(answer).encode()
        self.send_response(200 if self.user else 401)
        if challenge is not None:
            self.send_header("WWW-Authenticate", challenge)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _authenticate(self) -> str | None:
        """Take the next step; answers what the next challenge is."""
        import spnego
        from spnego.exceptions import SpnegoError

        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme != "NTLM":
            return None if self.user else "NTLM"
        message = base64.b64decode(token)
        if self.context is None or self.context.complete or message[8:9] == b"\x01":  # a negotiate message begins anew
            self.context, self.user = spnego.server(protocol="ntlm", options=spnego.NegotiateOptions.use_ntlm), None
        try:
            answer = self.context.step(message)
        except SpnegoError as error:
            self.log_message("refused: %s", error)
            self.context = None
            return "NTLM"
        if self.context.complete:
            self.user = self.context.client_principal
        return None if answer is None else "NTLM " + base64.b64encode(answer).decode()

    def _read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        body = b""
        while size := int(self.rfile.readline().partition(b";")[0], 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        while self.rfile.readline().strip():
            pass
        return body


class _Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    daemon_threads = True

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock.getsockname(), Connection, bind_and_activate=False)
        self.socket.close()
        self.socket = sock


if __name__ == "__main__":
    _Server(socket.socket(fileno=int(sys.argv[1]))).serve_forever()
