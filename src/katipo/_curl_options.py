"""What `options` knows of libcurl's own options: which of them a caller may pass by name, and how a set of them is put
together.

Numbers and kinds come from the loaded libcurl through `Library`, so an option is here known by its name alone. Nothing
here does I/O. No text that leaves this module contains an option's value: values may be secrets.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from operator import index
from typing import Any, Final, Protocol, TypeAlias, cast

from ._pattern import pattern
from .errors import BadOptions

LONG, VALUES, OFF_T, OBJECT, STRING, SLIST, CBPTR, BLOB, FUNCTION = range(9)
"""Kinds of options, as in curl's options.h."""

LONG_MAX: Final = 2**63 - 1
"""katipo runs where a C long and curl_off_t both have 64 bits."""

STRING_MAX: Final = 8_000_000
"""libcurl refuses longer strings (CURL_MAX_INPUT_LENGTH in lib/urldata.h)."""

Value: TypeAlias = int | bytes | list[bytes]
Setting: TypeAlias = tuple[int, Value]


class Library(Protocol):
    """The loaded libcurl, as far as options depend on it."""

    @property
    def version_num(self) -> int:
        """0xXXYYZZ."""
        ...

    @property
    def features(self) -> frozenset[str]:
        """Names of curl_version_info's feature_names in lower case ("http2", "brotli", "spnego", "https-proxy")."""
        ...

    @property
    def protocols(self) -> frozenset[str]: ...

    @property
    def ssl_version(self) -> str | None:
        """As libcurl names its TLS library ("OpenSSL/3.6.0"); None where it has none."""
        ...

    @property
    def default_cainfo(self) -> str | None:
        """The CA bundle to trust where a request names none; None leaves it to libcurl."""
        ...

    @property
    def default_capath(self) -> str | None: ...

    def option(self, name: str, /) -> tuple[int, int] | None:
        """(number, kind) of an option by its name without CURLOPT_; None where this libcurl has none of that name."""
        ...


class Refused(Exception):
    """Why one value is refused. `missing`: because this libcurl lacks something."""

    def __init__(self, text: str, *, missing: bool = False) -> None:
        super().__init__(text)
        self.text = text
        self.missing = missing


class Problems:
    """Every offence of one call, to be raised as one BadOptions."""

    __slots__ = ("_found",)

    def __init__(self) -> None:
        self._found: list[tuple[str, bool]] = []

    def add(self, text: str, *, missing: bool = False) -> None:
        self._found.append((text, missing))

    def refuse(self, name: str, refused: Refused) -> None:
        self._found.append((f"{name}: {refused.text}", refused.missing))

    def __bool__(self) -> bool:
        return bool(self._found)

    def raise_if_any(self) -> None:
        """Raise BadOptions naming every offence: "not_built_in" where all of them are what libcurl lacks, else
        "bad_opts".
        """
        if self._found:
            code = "not_built_in" if all(missing for _, missing in self._found) else "bad_opts"
            raise BadOptions("; ".join(text for text, _ in self._found), code=code)


# ---------------------------------------------------------------------------------------------- checks of single values


def kind_of(value: object) -> str:
    """How a message names a value: by its type, never by what it holds."""
    return "None" if value is None else type(value).__name__


def checked_int(value: object, low: int, high: int = LONG_MAX) -> int:
    """An int (anything with `__index__`) within bounds; a bool is none, nor is a float, integral or not."""
    if isinstance(value, bool) or not hasattr(type(value), "__index__"):
        raise Refused(f"must be an int, not {kind_of(value)}")
    number = index(cast(Any, value))
    if number < low:
        raise Refused("must not be negative" if low == 0 else f"must be at least {low}")
    if number > high:
        raise Refused(f"must be at most {high}")
    return number


def checked_bytes(value: object, *, what: str = "str or bytes") -> bytes:
    """A str (as UTF-8) or bytes without CR, LF and NUL, which libcurl would pass on, or stop at."""
    if isinstance(value, str):
        try:
            data = value.encode()
        except UnicodeEncodeError:
            raise Refused("is not encodable as UTF-8") from None
    elif isinstance(value, bytes):
        data = bytes(value)
    else:
        raise Refused(f"must be {what}, not {kind_of(value)}")
    if b"\r" in data or b"\n" in data or b"\0" in data:
        raise Refused("must not contain CR, LF or NUL")
    if len(data) > STRING_MAX:
        raise Refused(f"is longer than the {STRING_MAX} bytes that libcurl takes")
    return data


def checked_path(value: object) -> bytes:
    """A path in the file system's encoding. Whether the file is there is for libcurl to find out."""
    if not isinstance(value, (str, bytes, os.PathLike)):
        raise Refused(f"must be a path (str, bytes or os.PathLike), not {kind_of(value)}")
    try:
        data = os.fsencode(cast("os.PathLike[str]", value))
    except UnicodeEncodeError:
        raise Refused("is not encodable as a file name") from None
    if not data:
        raise Refused("must not be empty")
    return checked_bytes(data)


def checked_blob(value: object) -> bytes:
    """Bytes-like data, not empty."""
    if isinstance(value, str):
        raise Refused("must be bytes, not str")
    try:
        data = memoryview(cast(Any, value)).tobytes()
    except TypeError:
        raise Refused(f"must be bytes, not {kind_of(value)}") from None
    if not data:
        raise Refused("must not be empty")
    return data


# ------------------------------------------------------------------------------------------------ curl_options


def _words(text: str) -> list[str]:
    return text.split()


def _refusals(reason: str, names: str) -> dict[str, str]:
    return dict.fromkeys(_words(names), reason)


REFUSED: Final[Mapping[str, str]] = {
    **_refusals("give it in the URL", "URL CURLU PORT DEFAULT_PROTOCOL"),
    **_refusals("use the call's method", "CUSTOMREQUEST HTTPGET NOBODY POST PUT UPLOAD"),
    **_refusals(
        "use body or stream_body",
        "POSTFIELDS COPYPOSTFIELDS POSTFIELDSIZE POSTFIELDSIZE_LARGE INFILESIZE INFILESIZE_LARGE MIMEPOST HTTPPOST",
    ),
    **_refusals("use headers", "HTTPHEADER RTSPHEADER USERAGENT"),
    **_refusals("use timeout_ms", "TIMEOUT TIMEOUT_MS"),
    **_refusals("use connecttimeout_ms", "CONNECTTIMEOUT CONNECTTIMEOUT_MS"),
    **_refusals("use decode", "ACCEPT_ENCODING ENCODING HTTP_CONTENT_DECODING"),
    **_refusals("use max_response_bytes", "MAXFILESIZE MAXFILESIZE_LARGE"),
    **_refusals("use proxy", "PROXY PROXYUSERNAME PROXYPASSWORD PROXYUSERPWD NOPROXY"),
    **_refusals("use cookiejar or a Cookie header", "COOKIEFILE COOKIEJAR COOKIELIST COOKIESESSION"),
    **_refusals("use keypasswd", "KEYPASSWD SSLKEYPASSWD SSLCERTPASSWD"),
    **{
        name.upper(): f"use {name}"
        for name in _words(
            """
            dns_cache_timeout followlocation maxredirs ssl_verifyhost ssl_verifypeer cacert capath
            ca_cache_timeout sslversion sslcert sslkey sslkey_blob http_version http_auth username password
            userpwd interface unix_socket_path doh_url tcp_fastopen pipewait verbose
            """
        )
    },
    **_refusals("use cacert", "CAINFO"),
    **_refusals("use http_auth", "HTTPAUTH"),
    **_refusals("use a Range header or RANGE", "RESUME_FROM RESUME_FROM_LARGE"),
    **_refusals("only http and https are spoken", "PROTOCOLS PROTOCOLS_STR REDIR_PROTOCOLS REDIR_PROTOCOLS_STR"),
    **_refusals("netrc files are not read", "NETRC NETRC_FILE"),
    **_refusals(
        "katipo sets it itself",
        "NOSIGNAL NOPROGRESS QUICK_EXIT SUPPRESS_CONNECT_HEADERS PRIVATE BUFFERSIZE UPLOAD_BUFFERSIZE MAXCONNECTS",
    ),
    # These change what arrives between a response's first and last byte, which katipo reads itself.
    **_refusals(
        "katipo could not read the response",
        "HEADER HTTP09_ALLOWED HTTP200ALIASES HTTP_TRANSFER_DECODING TRANSFER_ENCODING CONNECT_ONLY WS_OPTIONS",
    ),
    **_refusals("use raise_for_status() of the response", "FAILONERROR"),
    **_refusals("it would change the body", "CRLF"),
    **_refusals("it takes a pointer", "SHARE STDERR ERRORBUFFER STREAM_DEPENDS STREAM_DEPENDS_E"),
    **_refusals("it is the whole process's", "SSLENGINE_DEFAULT"),
}
"""Options refused in `curl_options`, and what to do instead. Callbacks and their data are refused by their kind."""

_IDENTITY: Final = frozenset(
    _words(
        """
        ABSTRACT_UNIX_SOCKET ADDRESS_SCOPE CAINFO_BLOB CONNECT_TO CRLFILE DNS_INTERFACE DNS_LOCAL_IP4
        DNS_LOCAL_IP6 DNS_SERVERS ECH GSSAPI_DELEGATION HAPROXYPROTOCOL HAPROXY_CLIENT_IP HEADEROPT
        HTTPPROXYTUNNEL IPRESOLVE ISSUERCERT ISSUERCERT_BLOB LOCALPORT LOCALPORTRANGE PINNEDPUBLICKEY
        PRE_PROXY RESOLVE SERVICE_NAME TLS13_CIPHERS
        """
    )
)
_IDENTITY_PREFIXES: Final = ("DOH_", "PROXY", "SOCKS5_", "SSL", "TLSAUTH_")
"""With `_IDENTITY`: what a connection, a lookup or a session keeps and a request without the option must not meet."""

_PROXY_AUTH_ROUNDS: Final = ~1
"""Every bit of PROXYAUTH but basic may take more than one round."""

_PROXY_AUTH_NEGOTIATE: Final = 4


# The part of a caller's name that can be a name, so that no value that slipped in is shown.
_NAME: Final = pattern(r"[A-Za-z0-9_]{0,60}")


class Assembly:
    """Options on their way to a configuration: what libcurl is told, the identity, the flags, the offences so far."""

    __slots__ = ("_numbers", "curl", "flags", "identity_parts", "library", "problems")

    def __init__(self, library: Library, problems: Problems) -> None:
        self.library = library
        self.problems = problems
        self.curl: list[Setting] = []
        self.flags: set[str] = set()
        self.identity_parts: list[tuple[bytes, ...]] = []

    def set(self, name: str, value: Value, *, asked_as: str = "", identity: bool = False) -> bool:
        """Pass an option on. One that this libcurl lacks is an offence of the option `asked_as`, or, without it,
        left out.
        """
        found = self.library.option(name)
        if found is None:
            if asked_as:
                self.problems.add(f"{asked_as}: this libcurl has no {name}", missing=True)
            return False
        self.curl.append((found[0], value))
        if identity:
            self.identify(name, value)
        return True

    def identify(self, name: str, value: Value | str) -> None:
        """Make connections and names of this request a matter of requests with the same value."""
        if isinstance(value, list):
            self.identity_parts.append((name.encode(), *value))
        else:
            data = value if isinstance(value, bytes) else str(value).encode()
            self.identity_parts.append((name.encode(), data))

    def identity(self) -> bytes:
        """The identity's key: b"" for the plain one, else a digest that shows nothing of what went in."""
        if not self.identity_parts:
            return b""
        from hashlib import blake2b

        digest = blake2b(digest_size=16)
        for part in sorted(self.identity_parts):
            digest.update(b"%d:" % len(part))
            for item in part:
                digest.update(b"%d:" % len(item))
                digest.update(item)
        return digest.digest()


def add_curl_options(assembly: Assembly, options: Mapping[str, object]) -> None:
    """Check each of a caller's libcurl options by its kind and pass it on; offences go to the assembly's problems."""
    names: set[str] = set()
    for given, value in options.items():
        name = given.upper().removeprefix("CURLOPT_")
        start = _NAME.match(given)
        shown = f"curl_options[{start[0] if start else ''!r}]"
        if name in names:
            assembly.problems.add(f"{shown}: given twice")
            continue
        names.add(name)
        try:
            _add_curl_option(assembly, name, value)
        except Refused as refused:
            assembly.problems.refuse(shown, refused)
        except Exception:
            # An object's own __fspath__, __iter__ or __index__ raised; what it said may hold the value.
            assembly.problems.add(f"{shown}: could not be read")


def _add_curl_option(assembly: Assembly, name: str, value: object) -> None:
    if name in REFUSED:
        raise Refused(f"refused: {REFUSED[name]}")
    if name.endswith(("DATA", "FUNCTION")):
        raise Refused("refused: callbacks and their data are katipo's")
    found = assembly.library.option(name)
    if found is None:
        raise _unknown(assembly.library, name)
    kind = found[1]
    if kind in (OBJECT, CBPTR, FUNCTION):
        raise Refused("refused: it takes a pointer")
    checked = _checked_by_kind(kind, value)
    if name == "REQUEST_TARGET" and isinstance(checked, bytes) and (not checked or any(c <= 32 for c in checked)):
        raise Refused("must be without white space and control characters, and not empty")
    belongs = name in _IDENTITY or name.startswith(_IDENTITY_PREFIXES)
    assembly.set(name, checked, asked_as="curl_options", identity=belongs)
    if name == "PRE_PROXY" and checked:
        assembly.flags.add("proxied")
    elif name == "PROXYAUTH" and isinstance(checked, int):
        if checked & _PROXY_AUTH_ROUNDS:
            assembly.flags.add("may_retry_auth")
        if checked & _PROXY_AUTH_NEGOTIATE:
            assembly.flags.add("negotiate")


def _unknown(library: Library, name: str) -> Refused:
    """A name near to one that libcurl has is a slip; another is taken for what this libcurl lacks."""
    from difflib import get_close_matches

    near = [other for other in get_close_matches(name, _USUAL, n=3, cutoff=0.75) if library.option(other) is not None]
    if near:
        return Refused(f"libcurl has no option of that name; did you mean {near[0]}?")
    return Refused("this libcurl has no option of that name", missing=True)


_USUAL: Final = (
    *_words(
        """
        AUTOREFERER AWS_SIGV4 COOKIE EXPECT_100_TIMEOUT_MS FORBID_REUSE FRESH_CONNECT
        HAPPY_EYEBALLS_TIMEOUT_MS HTTPPROXYTUNNEL KEEP_SENDING_ON_ERROR LOW_SPEED_LIMIT LOW_SPEED_TIME
        MAXAGE_CONN MAXLIFETIME_CONN MAX_RECV_SPEED_LARGE MAX_SEND_SPEED_LARGE PATH_AS_IS POSTREDIR PROXYAUTH
        PROXYHEADER PROXY_CAINFO RANGE REFERER REQUEST_TARGET SSL_CIPHER_LIST SSL_OPTIONS STREAM_WEIGHT
        TCP_KEEPALIVE TCP_KEEPIDLE TCP_KEEPINTVL TCP_NODELAY TIMECONDITION TIMEVALUE UNRESTRICTED_AUTH
        """
    ),
    *sorted(_IDENTITY),
)


def _checked_by_kind(kind: int, value: object) -> Value:
    if kind in (LONG, VALUES, OFF_T):
        return int(value) if isinstance(value, bool) else checked_int(value, -LONG_MAX - 1)
    if kind == STRING:
        return checked_bytes(value) if isinstance(value, (str, bytes)) else checked_path(value)
    if kind == BLOB:
        return checked_blob(value)
    if kind == SLIST:
        if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
            raise Refused(f"must be a list of str or bytes, not {kind_of(cast(Any, value))}")
        return [
            checked_bytes(item, what="a list of str or bytes, not of other things")
            for item in cast("Iterable[object]", value)
        ]
    raise Refused("refused: katipo does not know its kind")
