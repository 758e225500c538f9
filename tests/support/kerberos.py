"""A realm of its own: MIT's KDC, two users, and Apache with mod_auth_gssapi in front of the origin.

Everything is in one temporary directory: the realm's configuration, its database, keytabs, ticket caches. Programs take
part through their environment (`Kerberos.env`), so a test runs its client in a process of its own: Kerberos reads its
configuration once, and the tests' own process has none.
"""

import contextlib
import functools
import itertools
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes import ServerProcess, free_ports, require_file, require_program
from tests.support.waiting import wait_until

REALM = "KATIPO.TEST"
USERS = ("alice", "bob")

# Where Debian and Fedora have Apache's modules.
_MODULE_FOLDERS = ("/usr/lib/apache2/modules", "/usr/lib64/httpd/modules", "/usr/lib/httpd/modules")
_MODULES = "mpm_event authn_core authz_core authz_user auth_gssapi headers proxy proxy_http".split()


@dataclass(frozen=True)
class Kerberos:
    """A running realm and a server that accepts its tickets.

    `url`/each wants a ticket with each request, `url`/bound one for a connection; below both is the origin
    (`/each/headers`), which is told of X-Remote-User and X-Client-Port, the client's port.
    """

    folder: Path
    url: str
    config: Path
    _processes: tuple[ServerProcess, ...]
    _log: Path
    _serial: Iterator[int] = field(default_factory=itertools.count)

    def env(self, user: str | None, config: Path | None = None) -> dict[str, str]:
        """The environment of a program of `user`, who has a ticket; None: nobody, without one."""
        return {"KRB5_CONFIG": str(config or self.config), "KRB5CCNAME": self.cache(user or "nobody")}

    def cache(self, user: str) -> str:
        """The name of a ticket cache of the user's: a fresh one, for Kerberos keeps what it has got in it."""
        path = self.folder / f"{user}-{next(self._serial)}.cache"
        with contextlib.suppress(FileNotFoundError):  # of somebody who has no ticket
            shutil.copyfile(self.folder / f"{user}.cache", path)
        return f"FILE:{path}"

    def with_kdc(self, port: int) -> Path:
        """A configuration of the realm whose KDC is on another port, and is waited for."""
        path = self.folder / f"krb5-{port}.conf"
        path.write_text(_krb5_conf(port), encoding="ascii")
        return path

    def requests(self) -> list[str]:
        """A line for each request executed so far: `METHOD PATH STATUS user=USER port=CLIENT_PORT`."""
        return self._log.read_text(encoding="utf-8").splitlines()

    def wait_executed(self, text: str, count: int) -> list[str]:
        """The lines that have `text` in them, once there are `count`: Apache writes them just after the last byte."""

        def found() -> list[str]:
            return [line for line in self.requests() if text in line]

        wait_until(lambda: len(found()) >= count, message=f"Apache has not executed {text!r} {count} times")
        return found()

    def stop(self) -> None:
        """End the servers. Idempotent."""
        for process in self._processes:
            process.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def start_kerberos(upstream: str) -> Kerberos:
    """Start a KDC, and Apache in front of the HTTP/1.1 server at `upstream`, a URL."""
    programs = {name: require_program(name) for name in ("krb5kdc", "kdb5_util", "kadmin.local", "kinit")}
    apache = require_program("apache2", "httpd")
    modules = require_file("mod_auth_gssapi.so", _MODULE_FOLDERS).parent
    # Not below pytest's directory, which is for its user alone: started as root, Apache serves as somebody else.
    folder = Path(tempfile.mkdtemp(prefix="katipo-kerberos-"))
    folder.chmod(0o755)
    processes: list[ServerProcess] = []
    try:
        kdc_port, port = free_ports(2)
        config = folder / "krb5.conf"
        config.write_text(_krb5_conf(kdc_port), encoding="ascii")
        (folder / "kdc.conf").write_text(_kdc_conf(folder, kdc_port), encoding="ascii")
        env = {"KRB5_CONFIG": str(config), "KRB5_KDC_PROFILE": str(folder / "kdc.conf")}
        _make_realm(folder, programs, env)
        kdc = ServerProcess([programs["krb5kdc"], "-n"], folder / "kdc.log", env=env)
        processes.append(kdc)
        _get_tickets(folder, programs["kinit"], env, kdc)
        (folder / "apache.conf").write_text(_apache_conf(folder, modules, port, upstream), encoding="ascii")
        server = ServerProcess(
            [apache, "-d", str(folder), "-f", str(folder / "apache.conf"), "-DFOREGROUND"],
            folder / "apache.log",
            env=env,
        )
        processes.append(server)
        server.wait_http(port)
    except BaseException:
        for process in processes:
            process.stop()
        shutil.rmtree(folder, ignore_errors=True)
        raise
    log = folder / "access.log"
    os.truncate(log, 0)  # the readiness probe is no request of a test
    return Kerberos(folder, f"http://localhost:{port}", config, tuple(processes), log)


def _make_realm(folder: Path, programs: Mapping[str, str], env: Mapping[str, str]) -> None:
    _run([programs["kdb5_util"], "create", "-s", "-r", REALM, "-P", "of no importance"], env)
    commands = [f"addprinc -randkey {name}" for name in (*USERS, "HTTP/localhost")]
    commands += [f"ktadd -k {folder / user}.keytab {user}" for user in USERS]
    commands.append(f"ktadd -k {folder}/http.keytab HTTP/localhost")
    _run([programs["kadmin.local"], "-r", REALM], env, "\n".join(commands) + "\n")
    (folder / "http.keytab").chmod(0o644)


def _get_tickets(folder: Path, kinit: str, env: Mapping[str, str], kdc: ServerProcess) -> None:
    def got(user: str) -> bool:
        kdc.check()
        with contextlib.suppress(RuntimeError):  # the KDC does not listen yet
            _run([kinit, "-k", "-t", f"{folder / user}.keytab", "-c", f"FILE:{folder / user}.cache", user], env)
            return True
        return False

    for user in USERS:
        wait_until(functools.partial(got, user), message=f"kinit gets no ticket for {user}: {kdc.output()}")


def _run(command: list[str], env: Mapping[str, str], text: str = "") -> None:
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, env={**os.environ, **env}, timeout=60, check=False
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} ended with status {done.returncode}:\n{done.stdout}{done.stderr}")


def _krb5_conf(port: int) -> str:
    # No DNS: neither for realms nor for the canonical name of localhost, which is whatever /etc/hosts makes it.
    return f"""[libdefaults]
 default_realm = {REALM}
 dns_lookup_realm = false
 dns_lookup_kdc = false
 dns_canonicalize_hostname = false
 rdns = false
[realms]
 {REALM} = {{
  kdc = 127.0.0.1:{port}
 }}
[domain_realm]
 localhost = {REALM}
"""


def _kdc_conf(folder: Path, port: int) -> str:
    return f"""[kdcdefaults]
 kdc_listen = 127.0.0.1:{port}
 kdc_tcp_listen = 127.0.0.1:{port}
[realms]
 {REALM} = {{
  database_name = {folder}/principal
  key_stash_file = {folder}/stash
  acl_file = {folder}/acl
 }}
"""


def _apache_conf(folder: Path, modules: Path, port: int, upstream: str) -> str:
    loaded = "\n".join(f"LoadModule {name}_module {modules}/mod_{name}.so" for name in _MODULES)
    # Apache refuses to serve as root.
    user = "User nobody\nGroup #65534" if os.geteuid() == 0 else ""

    def location(path: str, bound: str) -> str:
        return f"""<Location {path}>
 AuthType GSSAPI
 AuthName katipo
 GssapiCredStore keytab:{folder}/http.keytab
 GssapiAllowedMech krb5
 GssapiConnectionBound {bound}
 Require valid-user
 RequestHeader set X-Remote-User "expr=%{{REMOTE_USER}}"
 RequestHeader set X-Client-Port "expr=%{{REMOTE_PORT}}"
 RequestHeader unset Authorization
 ProxyPass {upstream}
</Location>"""

    return f"""ServerRoot {folder}
ServerName localhost
PidFile {folder}/apache.pid
DefaultRuntimeDir {folder}
Listen 127.0.0.1:{port}
ErrorLog {folder}/error.log
LogFormat "%m %U%q %>s user=%u port=%{{remote}}p" brief
CustomLog {folder}/access.log brief
{user}
KeepAlive On
KeepAliveTimeout 60
MaxKeepAliveRequests 0
StartServers 1
{loaded}
{location("/each", "Off")}
{location("/bound", "On")}
"""
