"""nginx as an HTTP/2 server over TLS, for the one scenario that wants it; runs without root, as one process."""

import contextlib
import pathlib
import socket
import subprocess
import time
from collections.abc import Generator

from benchmarks.cores import SERVER_CORE, on_core

_CONFIGURATION = """
daemon off; master_process off; pid {folder}/nginx.pid; error_log {folder}/error.log;
events {{ worker_connections 4096; }}
http {{
  access_log off; keepalive_requests 1000000; http2_max_concurrent_streams 256;
  client_body_temp_path {folder}/t1; proxy_temp_path {folder}/t2; fastcgi_temp_path {folder}/t3;
  uwsgi_temp_path {folder}/t4; scgi_temp_path {folder}/t5;
  server {{
    listen 127.0.0.1:{port} ssl http2;
    ssl_certificate {certificate}; ssl_certificate_key {certificate};
    location = /small {{ default_type application/octet-stream; return 200 "{body}"; }}
  }}
}}
"""


@contextlib.contextmanager
def running(folder: pathlib.Path, certificate: pathlib.Path) -> Generator[tuple[int, int], None, None]:
    """Run nginx and yield its port and process id once it accepts connections."""
    with socket.create_server(("127.0.0.1", 0)) as reserved:
        port = reserved.getsockname()[1]
    path = folder / "nginx.conf"
    path.write_text(_CONFIGURATION.format(folder=folder, certificate=certificate, port=port, body="x" * 1024))
    process = subprocess.Popen(
        ["nginx", "-p", str(folder), "-c", str(path)],
        stderr=subprocess.DEVNULL,  # it warns of its default log, which it may not open
        preexec_fn=on_core(SERVER_CORE),
    )
    try:
        _wait_until_accepting(process, port)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def _wait_until_accepting(process: subprocess.Popen[bytes], port: int) -> None:
    """Return once `port` takes a connection; raises RuntimeError when nginx ends or five seconds are over."""
    deadline = time.monotonic() + 5
    while process.poll() is None and time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise RuntimeError("nginx did not start")
