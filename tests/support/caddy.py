"""Real Caddy on free loopback ports, as the current user: httpbin over HTTP/1.1, 2 and 3.

Its HTTP/3 (quic-go) is the suites' second opinion on everything that aioquic says. Caddy 2.6.2 drops a request body that
has no Content-Length over HTTP/3: streamed uploads go to the origin.
"""

import json
from dataclasses import dataclass
from pathlib import Path

from tests.support.certs import Certificates
from tests.support.processes import ServerProcess, free_ports, require_program
from tests.support.waiting import wait_until

# Asked until Caddy answers; no request of a test, so not in its log.
READY = "/ready"


@dataclass(frozen=True)
class Caddy:
    """A running Caddy: base URLs without a trailing slash, and its access log."""

    process: ServerProcess
    log: Path
    http_port: int
    https_port: int

    @property
    def http(self) -> str:
        """Plain HTTP/1.1."""
        return f"http://localhost:{self.http_port}"

    @property
    def https(self) -> str:
        """TLS: HTTP/1.1 and 2 over TCP, HTTP/3 over UDP, on one port number."""
        return f"https://localhost:{self.https_port}"

    def requests(self) -> list[str]:
        """A line for each request executed so far: `METHOD URI PROTOCOL STATUS BODY_BYTES`."""
        if not self.log.exists():
            return []
        lines = []
        for line in self.log.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            request = entry["request"]
            if request["uri"] == READY:
                continue
            lines.append(f"{request['method']} {request['uri']} {request['proto']} {entry['status']} {entry['size']}")
        return lines

    def executed(self, text: str) -> int:
        """How many requests executed so far have `text` in their line."""
        return sum(text in line for line in self.requests())

    def wait_executed(self, text: str, count: int = 1, timeout: float = 10.0) -> None:
        """Wait until `executed(text)` is `count` or more."""
        wait_until(lambda: self.executed(text) >= count, timeout, f"Caddy has not executed {text!r} {count} times")

    def stop(self) -> None:
        """End the server. Idempotent."""
        self.process.stop()


def start_caddy(folder: Path, certs: Certificates, upstream: int) -> Caddy:
    """Start Caddy with everything it writes in `folder`, in front of an HTTP/1.1 server on port `upstream`."""
    program = require_program("caddy")
    log = folder / "access.log"
    home = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    failure: BaseException | None = None
    for _ in range(3):
        http_port, https_port = free_ports(2, udp=True)
        config = folder / "Caddyfile"
        config.write_text(_config(certs, log, http_port, https_port, upstream), encoding="utf-8")
        process = ServerProcess(
            [program, "run", "--config", str(config), "--adapter", "caddyfile"], folder / "caddy.log", env=home
        )
        try:
            process.wait_http(http_port, READY)
        except RuntimeError as error:  # a port was taken by somebody else in between
            failure = error
            continue
        except BaseException:
            process.stop()
            raise
        return Caddy(process, log, http_port, https_port)
    raise RuntimeError("Caddy does not start") from failure


def _config(certs: Certificates, log: Path, http_port: int, https_port: int, upstream: int) -> str:
    site = f"""
  bind 127.0.0.1
  respond {READY} 204
  log {{
    output file {log} {{
      roll_disabled
    }}
    format json
  }}
  reverse_proxy 127.0.0.1:{upstream} {{
    transport http {{
      compression off
    }}
  }}
"""
    return f"""{{
  admin off
  auto_https off
  grace_period 1s
  http_port {http_port}
  https_port {https_port}
  servers {{
    protocols h1 h2 h3
  }}
}}
http://:{http_port} {{{site}}}
https://:{https_port} {{
  tls {certs.localhost.cert} {certs.localhost.key}{site}}}
"""
