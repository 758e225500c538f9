"""A client's configuration as values, and what they come to as options of the pool.

    Timeout    how long what may take: connecting, reading, writing, waiting for a turn, everything
    Limits     how many connections, and for how long idle ones are used again
    TLS        versions, ciphers, pinned keys

`tls_options` puts together what `verify`, `cert`, `tls` and the environment say. It looks whether `verify` is a file or
a folder; other files are not looked for: a certificate or key that is missing is the request's error (58), so that one
that is replaced while a client lives is read anew.

Everything wrong raises BadOptions, which names what is wrong and shows no value.
"""

from __future__ import annotations

import enum
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

from ._curl_options import Problems, Refused, checked_bytes, checked_int, checked_path, kind_of
from ._frozen import Frozen
from ._library import certificate_in, find_trust, trust_at_load
from ._option_table import INT_MAX, MS_MAX
from ._pattern import pattern

__all__ = ["TLS", "UNSET", "CertTypes", "Limits", "Timeout", "TimeoutTypes", "Unset", "as_timeout", "tls_options"]


class Unset(enum.Enum):
    """The type of UNSET: an argument that was left out, where None means something else."""

    UNSET = "left out"

    def __repr__(self) -> str:
        return "<left out>"


UNSET: Final = Unset.UNSET

# ------------------------------------------------------------------------------------------------ timeouts

Seconds: TypeAlias = float | None
_Times: TypeAlias = (
    tuple[Seconds, Seconds] | tuple[Seconds, Seconds, Seconds] | tuple[Seconds, Seconds, Seconds, Seconds]
)


class Timeout(Frozen):
    """Time limits of a request, in seconds; None: no limit.

    `timeout`: a number for connect, read and write alike, None for no limit on them; a tuple (connect, read, write,
    pool), of which the last two may be missing; or another Timeout. What is given by name wins; what is not given at
    all is as in Timeout(): 5 s to connect, to read and to write, no limit on waiting for a connection, nor on the whole.

    `read` and `write` measure inactivity, `pool` waiting for a turn, `total` everything, waiting included. Infinity is None.

    Raises:
        BadOptions: something is no number of seconds above 0.
    """

    __slots__ = ("connect", "read", "write", "pool", "total")  # noqa: RUF023 - the order of repr and of _set
    connect: float | None
    read: float | None
    write: float | None
    pool: float | None
    total: float | None

    def __init__(
        self,
        timeout: TimeoutTypes | Unset = UNSET,
        *,
        connect: Seconds | Unset = UNSET,
        read: Seconds | Unset = UNSET,
        write: Seconds | Unset = UNSET,
        pool: Seconds | Unset = UNSET,
        total: Seconds | Unset = UNSET,
    ) -> None:
        problems = Problems()
        values = _base(timeout, problems)
        given = {"connect": connect, "read": read, "write": write, "pool": pool, "total": total}
        for i, (name, value) in enumerate(given.items()):
            if not isinstance(value, Unset):
                values[i] = _seconds(name, value, problems)
        problems.raise_if_any()
        self._set(*values)

    def pool_options(self) -> dict[str, int]:
        """The pool's options for these limits: milliseconds, 0 for none. A fraction of a millisecond is rounded up."""
        return {
            "connecttimeout_ms": _milliseconds(self.connect),
            "read_timeout_ms": _milliseconds(self.read),
            "write_timeout_ms": _milliseconds(self.write),
            "pool_timeout_ms": _milliseconds(self.pool),
            "timeout_ms": _milliseconds(self.total),
        }


TimeoutTypes: TypeAlias = "Timeout | Seconds | _Times"

_DEFAULT: Final = (5.0, 5.0, 5.0, None, None)
"""httpx's, but for the pool's (api.md, section 3)."""


def _base(timeout: object, problems: Problems) -> list[float | None]:
    if isinstance(timeout, Unset):
        return list(_DEFAULT)
    if isinstance(timeout, Timeout):
        return [timeout.connect, timeout.read, timeout.write, timeout.pool, timeout.total]
    if isinstance(timeout, tuple):
        parts = cast("tuple[object, ...]", timeout)
        if not 2 <= len(parts) <= 4:
            problems.add(
                "timeout: a tuple must be (connect, read), (connect, read, write) or (connect, read, write, pool)"
            )
            return list(_DEFAULT)
        names = ("connect", "read", "write", "pool")
        values = [_seconds(name, part, problems) for name, part in zip(names, parts, strict=False)]
        return values + [None] * (5 - len(values))
    seconds = _seconds("timeout", timeout, problems)
    return [seconds, seconds, seconds, None, None]


def _seconds(name: str, value: object, problems: Problems) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        problems.add(f"{name}: must be a number of seconds or None, not {kind_of(value)}")
    elif not value > 0:  # NaN is not either
        problems.add(f"{name}: must be more than 0 seconds (None: no limit)")
    elif value == float("inf"):
        return None
    elif value > MS_MAX // 1000:
        problems.add(f"{name}: must be at most {MS_MAX // 1000} seconds (None: no limit)")
    else:
        return float(value)
    return None


def ceil(value: float) -> int:
    """math.ceil. Its module is a shared object on many systems, and would be loaded for this alone."""
    return -int(-value // 1)


def _milliseconds(seconds: float | None) -> int:
    if seconds is None:
        return 0
    # To the nanosecond, or 2.003 s would come out as 2004 ms: it is 2003.0000000000002 in binary.
    return max(1, ceil(round(seconds * 1000, 6)))


def as_timeout(value: object) -> Timeout:
    """A client's or a request's `timeout`: a Timeout as it is, else what Timeout(value) makes of it. Raises BadOptions."""
    return value if isinstance(value, Timeout) else Timeout(cast(Any, value))


# ------------------------------------------------------------------------------------------------ limits


class Limits(Frozen):
    """Limits on a client's connections; None: no limit of its own.

    `max_connections`: open at a time. `max_keepalive_connections`: kept when they are idle; None: all, 0: none.
    `keepalive_expiry`: seconds after which an idle connection is not used again, in whole ones, rounded up; it is
    closed when a request looks for one. 0: a connection is closed when its last request has ended; None (or more than a
    year): it is used for as long as the server keeps it. `max_connections_per_host`: open at a time to one scheme, host
    and port.

    Raises:
        BadOptions: naming every bad value.
    """

    __slots__ = (  # noqa: RUF023 - the order of repr and of _set
        "max_connections",
        "max_keepalive_connections",
        "keepalive_expiry",
        "max_connections_per_host",
    )
    max_connections: int | None
    max_keepalive_connections: int | None
    keepalive_expiry: float | None
    max_connections_per_host: int | None

    def __init__(
        self,
        *,
        max_connections: int | None = 100,
        max_keepalive_connections: int | None = None,
        keepalive_expiry: float | None = 5.0,
        max_connections_per_host: int | None = None,
    ) -> None:
        problems = Problems()
        self._set(
            _number("max_connections", max_connections, 1, problems),
            _number("max_keepalive_connections", max_keepalive_connections, 0, problems),
            _expiry(keepalive_expiry, problems),
            _number("max_connections_per_host", max_connections_per_host, 1, problems),
        )
        problems.raise_if_any()

    def for_pool(self) -> dict[str, Any]:
        """The arguments of katipo.Pool."""
        return {
            "max_total_connections": self.max_connections or 0,
            "max_host_connections": self.max_connections_per_host or 0,
            "max_idle_connections": self.max_keepalive_connections,
        }

    def curl_options(self) -> dict[str, int]:
        """What libcurl is told with each request: `keepalive_expiry`."""
        if self.keepalive_expiry == 0:
            return {"FORBID_REUSE": 1}
        # Left alone it is 118 s, and 0 is no limit to some versions and less than a second to others.
        seconds = _LONG if self.keepalive_expiry is None else ceil(self.keepalive_expiry)
        return {"MAXAGE_CONN": seconds}


_LONG: Final = 365 * 86400
"""A year, in place of no expiry: arbitrary, longer than any server keeps a connection."""


def _number(name: str, value: object, low: int, problems: Problems) -> int | None:
    if value is None:
        return None
    try:
        return checked_int(value, low, INT_MAX)
    except Refused as refused:
        problems.refuse(name, refused)
    return None


def _expiry(value: object, problems: Problems) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        problems.add(f"keepalive_expiry: must be a number of seconds or None, not {kind_of(value)}")
    elif not value >= 0:  # NaN is not either
        problems.add("keepalive_expiry: must be 0 or more seconds (None: no limit)")
    elif value <= _LONG:
        return float(value)
    return None


# ------------------------------------------------------------------------------------------------ TLS

_VERSIONS: Final = ("1.0", "1.1", "1.2", "1.3")
_CIPHER: Final = pattern(r"[A-Za-z0-9_+!@=.-]+")
"""What OpenSSL's cipher lists are made of (openssl-ciphers(1)), between colons."""
_PIN: Final = pattern(r"sha256//[A-Za-z0-9+/]{43}=")
"""The form that libcurl reads (CURLOPT_PINNEDPUBLICKEY), of 32 bytes in base64."""


class TLS(Frozen):
    """TLS settings beyond trust and the client's certificate.

    `min_version`: "1.0", "1.1", "1.2" or "1.3". `ciphers`: names as OpenSSL has them, in one str with ":" between, or
    in a sequence: those that begin with TLS_ are suites of TLS 1.3 and replace its default ones, the others make the
    cipher list of 1.2 and before. `pinned_public_keys`: "sha256//" and the base64 of the SHA-256 of the server's public
    key (its SubjectPublicKeyInfo in DER); one of them must be the server's, beside whatever `verify` asks.

    Raises:
        BadOptions: naming every bad value.
    """

    __slots__ = ("min_version", "ciphers", "pinned_public_keys")  # noqa: RUF023 - the order of repr and of _set
    min_version: str
    ciphers: tuple[str, ...] | None
    pinned_public_keys: tuple[str, ...]

    def __init__(
        self,
        min_version: str = "1.2",
        ciphers: str | Sequence[str] | None = None,
        pinned_public_keys: str | Sequence[str] = (),
    ) -> None:
        problems = Problems()
        if min_version not in _VERSIONS:
            problems.add("min_version: must be one of " + ", ".join(f'"{version}"' for version in _VERSIONS))
        names = None
        if ciphers is not None:
            names = _names("ciphers", ciphers, ":", _CIPHER, "is no name of a cipher", problems)
            if not names and not problems:
                problems.add("ciphers: must not be empty")
        what = 'is not "sha256//" and the base64 of 32 bytes'
        pins = _names("pinned_public_keys", pinned_public_keys, ";", _PIN, what, problems)
        problems.raise_if_any()
        self._set(min_version, names, pins)

    def curl_options(self) -> dict[str, str]:
        """What libcurl is told but for the version."""
        options: dict[str, str] = {}
        for name, chosen in (
            ("TLS13_CIPHERS", [each for each in self.ciphers or () if _is_tls13(each)]),
            ("SSL_CIPHER_LIST", [each for each in self.ciphers or () if not _is_tls13(each)]),
        ):
            if chosen:
                options[name] = ":".join(chosen)
        if self.pinned_public_keys:
            options["PINNEDPUBLICKEY"] = ";".join(self.pinned_public_keys)
        return options


def _is_tls13(cipher: str) -> bool:
    # TLS_ECDHE_RSA_WITH_...: the names of the RFCs for suites of 1.2, which OpenSSL takes in that list.
    return cipher.startswith("TLS_") and "_WITH_" not in cipher


def _names(
    option: str, value: object, separator: str, form: re.Pattern[str], wrong: str, problems: Problems
) -> tuple[str, ...]:
    """A str that is split, or a sequence of str, each of the form."""
    if isinstance(value, str):
        items: list[object] = [item.strip() for item in value.split(separator)] if value else []
    elif isinstance(value, (list, tuple)):
        items = list(cast("Sequence[object]", value))
    else:
        problems.add(f"{option}: must be a str or a sequence of str, not {kind_of(value)}")
        return ()
    found: list[str] = []
    for i, item in enumerate(items, 1):
        if not isinstance(item, str):
            problems.add(f"{option}: number {i} must be str, not {kind_of(item)}")
        elif form.fullmatch(item) is None:
            problems.add(f"{option}: number {i} {wrong}")
        else:
            found.append(item)
    return tuple(found)


# ------------------------------------------------------------------------------------------------ verify, cert, tls

Path: TypeAlias = "str | bytes | os.PathLike[str] | os.PathLike[bytes]"
CertTypes: TypeAlias = "Path | tuple[Path, Path | None] | tuple[Path, Path | None, str | bytes | None]"


def tls_options(*, verify: object, cert: object, tls: object, environ: Mapping[str, str] | None) -> dict[str, object]:
    """The pool's options for a client's `verify`, `cert` and `tls`; `curl_options` among them is to be merged with others.

    `environ`: where SSL_CERT_FILE and SSL_CERT_DIR are looked up, which count where `verify` is True; None: they do not
    count. They also say what the certificate of an HTTPS proxy is checked against; `verify` is for servers.

    Raises:
        BadOptions: naming every bad value.
    """
    problems = Problems()
    options: dict[str, object] = {}
    curl: dict[str, object] = {}
    trust = find_trust(environ)
    # What libcurl is told anyway is left out: a request with trust of its own shares no connections with others.
    told = trust == trust_at_load() or trust == (None, None)
    if not told:
        curl.update(zip(("PROXY_CAINFO", "PROXY_CAPATH"), trust, strict=True))
    try:
        options.update(_verify_options(verify, {} if told else dict(zip(("cacert", "capath"), trust, strict=True))))
    except Refused as refused:
        problems.refuse("verify", refused)
    try:
        options.update(_cert_options(cert))
    except Refused as refused:
        problems.refuse("cert", refused)
    if tls is None:
        tls = TLS()
    if isinstance(tls, TLS):
        options["sslversion"] = tls.min_version
        curl.update(tls.curl_options())
    else:
        problems.add(f"tls: must be a katipo.TLS or None, not {kind_of(tls)}")
    problems.raise_if_any()
    options["curl_options"] = {name: value for name, value in curl.items() if value is not None}
    return {name: value for name, value in options.items() if value is not None}


def _verify_options(verify: object, default: dict[str, object]) -> dict[str, object]:
    if verify is True:
        return default
    if verify is False:
        return {"ssl_verifypeer": False, "ssl_verifyhost": False}
    if any(base.__module__ == "ssl" and base.__name__ == "SSLContext" for base in type(verify).__mro__):
        raise Refused(
            "an ssl.SSLContext cannot be honoured: TLS is libcurl's. Give the path of the CAs here,"
            " the client's certificate as cert, and versions and ciphers as tls=katipo.TLS(...)"
        )
    if not isinstance(verify, (str, bytes, os.PathLike)):
        raise Refused(f"must be True, False or the path of CAs, not {kind_of(verify)}")
    path = _path(cast(object, verify))
    if os.path.isdir(path):
        # libcurl cannot be told to trust a folder alone: a file is named as well. One of the folder's adds nothing.
        file = certificate_in(os.fsdecode(path))
        if file is None:
            raise Refused(
                "there is no certificate in this folder under a name as OpenSSL looks for (see openssl rehash)"
            )
        return {"cacert": file, "capath": path}
    if not os.path.exists(path):
        raise Refused("there is no such file or folder")
    return {"cacert": path}


def _cert_options(cert: object) -> dict[str, object]:
    if cert is None:
        return {}
    key = password = None
    if isinstance(cert, tuple):
        parts = cast("tuple[object, ...]", cert)
        if not 2 <= len(parts) <= 3:
            raise Refused("a tuple must be (certificate, key) or (certificate, key, password)")
        cert, key, password = (*parts, None) if len(parts) == 2 else parts
    # Without a password OpenSSL would ask at the terminal, where there is one, and the worker wait for an answer.
    options: dict[str, object] = {"sslcert": _path(cert), "keypasswd": b""}
    if key is not None:
        options["sslkey"] = _path(key)
    if password is not None:
        options["keypasswd"] = checked_bytes(password, what="str, bytes or None")
    return options


def _path(value: object) -> bytes:
    try:
        return checked_path(value)
    except Refused:
        raise
    except Exception:
        # A caller's __fspath__ raised; what it said may hold the value.
        raise Refused("could not be read") from None
