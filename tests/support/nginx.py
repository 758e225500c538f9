"""Real nginx on free loopback ports, as the current user: httpbin behind it, and locations for what httpbin cannot do.

The access log is unbuffered and written when a request has been executed, so that its lines count executions.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from tests.support.certs import Certificates
from tests.support.pattern import pattern
from tests.support.processes import ServerProcess, free_ports, require_program
from tests.support.waiting import wait_until

KIB = 1024
FILES = {"small": KIB, "medium": 256 * KIB, "big": 64 * KIB * KIB}

# Of a slow location, per second.
SLOW_RATE = 64 * KIB

_PORTS: tuple[str, ...] = (
    "http", "https", "few", "few_http", "idle", "mutual", "wrong_host", "self_signed", "expired", "tls12",
)  # fmt: skip


@dataclass(frozen=True)
class Nginx:
    """A running nginx: base URLs without a trailing slash, and its access log."""

    process: ServerProcess
    ports: dict[str, int]
    files: dict[str, int]
    log: Path
    http: str
    https: str
    few: str
    few_http: str
    idle: str
    mutual: str
    wrong_host: str
    self_signed: str
    expired: str
    tls12: str

    def requests(self) -> list[str]:
        """A line for each request executed so far: `METHOD URI PROTOCOL STATUS BODY_BYTES CONNECTION`."""
        return self.log.read_text(encoding="utf-8", errors="replace").splitlines()

    def executed(self, text: str) -> int:
        """How many requests executed so far have `text` in their line."""
        return sum(text in line for line in self.requests())

    def wait_executed(self, text: str, count: int = 1, timeout: float = 10.0) -> None:
        """Wait until `executed(text)` is `count` or more: nginx logs just after the last byte has gone out."""
        wait_until(lambda: self.executed(text) >= count, timeout, f"nginx has not executed {text!r} {count} times")

    def stop(self) -> None:
        """End the server. Idempotent."""
        self.process.stop()


def start_nginx(folder: Path, certs: Certificates, upstream: int) -> Nginx:
    """Start nginx with its prefix in `folder`, in front of an HTTP/1.1 server on port `upstream`."""
    program = require_program("nginx")
    files = folder / "files"
    files.mkdir()
    for name, size in FILES.items():
        (files / name).write_bytes(pattern(0, size))
    (folder / "tmp").mkdir()
    failure: BaseException | None = None
    for _ in range(3):
        ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        config = folder / "nginx.conf"
        config.write_text(_config(folder, certs, ports, upstream), encoding="utf-8")
        process = ServerProcess(
            [program, "-p", str(folder), "-c", str(config), "-e", str(folder / "error.log")], folder / "nginx.log"
        )
        try:
            process.wait_http(ports["http"], "/return/204")
        except RuntimeError as error:  # a port was taken by somebody else in between
            failure = error
            continue
        except BaseException:
            process.stop()
            raise
        urls = {
            name: f"{'http' if name in ('http', 'few_http', 'idle') else 'https'}://localhost:{port}"
            for name, port in ports.items()
        }
        log = folder / "access.log"
        with contextlib.suppress(FileNotFoundError):
            os.truncate(log, 0)  # the readiness probe is no request of a test
        return Nginx(process, ports, dict(FILES), log, **urls)
    raise RuntimeError("nginx does not start") from failure


def _config(folder: Path, certs: Certificates, ports: dict[str, int], upstream: int) -> str:
    user = "user root;" if os.geteuid() == 0 else ""  # workers must be able to read the prefix
    common = _locations(folder, upstream)
    right = certs.localhost

    def server(name: str, body: str, *, tls: tuple[Path, Path] | None = (right.cert, right.key)) -> str:
        kind = " ssl http2" if tls else ""
        lines = f"ssl_certificate {tls[0]}; ssl_certificate_key {tls[1]};" if tls else ""
        return f"server {{ listen 127.0.0.1:{ports[name]}{kind}; server_name localhost; {lines}\n{body}\n{common} }}"

    optional = f"ssl_client_certificate {certs.ca}; ssl_verify_client optional;"
    mutual = f"ssl_client_certificate {certs.ca}; ssl_verify_client on;"
    servers = [
        server("http", "", tls=None),
        server("https", optional),
        server("few", "keepalive_requests 5;"),
        server("few_http", "keepalive_requests 5;", tls=None),
        server("idle", "keepalive_timeout 300ms;", tls=None),
        server("mutual", mutual),
        server("wrong_host", "", tls=(certs.wrong_host.cert, certs.wrong_host.key)),
        server("self_signed", "", tls=(certs.self_signed.cert, certs.self_signed.key)),
        server("expired", "", tls=(certs.expired.cert, certs.expired.key)),
        server("tls12", "ssl_protocols TLSv1.2;"),
    ]
    # server_name matters for TLS 1.2 alone: each port is its own default server.
    return f"""
{user}
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log warn;
events {{ worker_connections 4096; }}
http {{
  log_format plain '$request_method $request_uri $server_protocol $status $body_bytes_sent $connection';
  access_log {folder}/access.log plain;
  client_body_temp_path {folder}/tmp/body;
  proxy_temp_path {folder}/tmp/proxy;
  fastcgi_temp_path {folder}/tmp/fastcgi;
  uwsgi_temp_path {folder}/tmp/uwsgi;
  scgi_temp_path {folder}/tmp/scgi;
  client_max_body_size 0;
  keepalive_requests 1000;
  keepalive_timeout 60s;
  tcp_nodelay on;
  default_type application/octet-stream;
  ssl_protocols TLSv1.2 TLSv1.3;
  ssl_session_cache shared:tests:1m;
  map $http_x_fast $slow_rate {{ default {SLOW_RATE}; yes 0; }}
  {chr(10).join(servers)}
}}
"""


def _locations(folder: Path, upstream: int) -> str:
    proxied = f"""
    proxy_pass http://127.0.0.1:{upstream}/;
    proxy_http_version 1.1;
    proxy_set_header Host $http_host;
    proxy_set_header Connection "";
"""
    returns = "\n".join(
        f"location = /return/{status} {{ return {status}{_return_text(status)}; }}" for status in _STATUSES
    )
    return f"""
  {returns}
  location / {{ {proxied} }}
  location /unbuffered/ {{ {proxied} proxy_request_buffering off; proxy_buffering off; }}
  location /limited {{ client_max_body_size 1k; {proxied} }}
  location /files/ {{ alias {folder}/files/; }}
  location /slow/ {{ alias {folder}/files/; limit_rate $slow_rate; }}
  location = /trailers {{
    alias {folder}/files/small;
    add_trailer X-Trailer-1 value-1 always;
    add_trailer X-Trailer-2 value-2 always;
  }}
  location = /client-cert {{ return 200 "$ssl_client_verify $ssl_client_s_dn"; }}
"""


# 1xx cannot be returned by nginx; 444 is nginx's own "close without an answer".
_STATUSES = (
    200, 201, 202, 203, 204, 205, 206, 207, 226, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407,
    408, 409, 410, 411, 412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 444, 451, 500, 501,
    502, 503, 504, 505, 506, 507, 508, 510, 511, 599,
)  # fmt: skip


def _return_text(status: int) -> str:
    if status in (301, 302, 303, 307, 308):
        return " /return/200"
    return "" if status in (204, 205, 304, 444) else f' "status {status}"'
