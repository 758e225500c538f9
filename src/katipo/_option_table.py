"""The one table of request options: each one's name, default, check, and how it reaches libcurl."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from typing import Any, Final, cast

from ._curl_options import LONG_MAX, Refused, checked_blob, checked_bytes, checked_int, checked_path, kind_of
from ._frozen import dataclass
from ._proxy import checked_proxy
from ._request_headers import checked_body, checked_headers
from .cookies import CookieJar

MS_MAX: Final = 10**12
"""31 years: arbitrary, and small enough for the engine to count in nanoseconds."""

INT_MAX: Final = 2**31 - 1
_WINDOW_MAX: Final = 2**62
"""Arbitrary: leaves room to add credit to."""

WINDOW: Final = 1048576

HTTP_VERSIONS: Final = {
    "none": (4, None),
    "1.0": (1, None),
    "1.1": (2, None),
    "2": (3, "http2"),
    "2tls": (4, "http2"),
    "2-prior-knowledge": (5, "http2"),
    "3": (30, "http3"),
    "3-only": (31, "http3"),
}
"""CURL_HTTP_VERSION_* and the feature it takes. "none" is HTTP/2 over TLS where there is HTTP/2, else 1.1."""

TLS_VERSIONS: Final = {"default": 0, "1.0": 4, "1.1": 5, "1.2": 6, "1.3": 7}
"""CURL_SSLVERSION_TLSv1_*: minimums since libcurl 7.54."""

AUTHS: Final = {"basic": (1, None), "digest": (2, None), "negotiate": (4, "spnego"), "ntlm": (8, "ntlm")}
"""CURLAUTH_* and the feature it takes."""


def checked_flag(value: object) -> bool:
    if value is True or value is False:
        return value
    raise Refused(f"must be True or False, not {kind_of(value)}")


def _int(low: int, high: int) -> Callable[[object], int]:
    return lambda value: checked_int(value, low, high)


def _choice(*choices: str) -> Callable[[object], str]:
    def check(value: object) -> str:
        if isinstance(value, str) and value in choices:
            return str(value)
        raise Refused("must be one of " + ", ".join(f'"{choice}"' for choice in choices))

    return check


def _text(value: object) -> bytes:
    data = checked_bytes(value)
    if not data:
        raise Refused("must not be empty")
    return data


def _window(value: object) -> int:
    return -1 if value is None else checked_int(value, 0, _WINDOW_MAX)


def _cookiejar(value: object) -> CookieJar:
    if not isinstance(value, CookieJar):
        raise Refused(f"must be the cookiejar of a response, not {kind_of(value)}")
    return value


def _doh_url(value: object) -> bytes:
    data = checked_bytes(value)
    if not data.lower().startswith(b"https://") or len(data) == 8 or any(c <= 32 for c in data):
        raise Refused("must be an https URL")
    return data


def _ref(value: object) -> Hashable:
    try:
        hash(value)
    except Exception:
        raise Refused(f"must be hashable, which {kind_of(value)} is not") from None
    return value


def _curl_mapping(value: object) -> dict[str, object] | None:
    if not isinstance(value, Mapping):
        raise Refused(f"must be a mapping, not {kind_of(value)}")
    options = dict(cast("Mapping[object, object]", value).items())
    if not all(isinstance(name, str) for name in options):
        raise Refused("every name must be str")
    return cast("dict[str, object]", options) or None


def _mailbox(_value: object) -> object:
    raise Refused("must be a Mailbox")  # replaced by compile_options' check_reply_to


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the table."""

    name: str
    default: Any
    """Giving it is the same as giving nothing."""
    check: Callable[[object], Any]
    """Gives the value's normal form, or raises Refused."""
    curl: str = ""
    """The libcurl option that takes the normal form as it is; "": `options` or the request's own part sees to it."""
    identity: bool = False
    """Connections made with it are for requests with the same value only."""
    per_request: bool = False
    """Has no part in a configuration."""
    only_async: bool = False
    shareable: bool = False
    """A configuration with it may be kept for later calls: its values are few, small and no secret."""


_MS: Final = _int(0, MS_MAX)
OPTIONS: Final = (
    Option("headers", None, checked_headers, per_request=True),
    Option("cookiejar", None, _cookiejar),
    Option("body", None, checked_body, per_request=True),
    Option("connecttimeout_ms", 30000, _MS, shareable=True),
    Option("timeout_ms", 30000, _MS, shareable=True),
    Option("read_timeout_ms", 0, _MS, shareable=True),
    Option("write_timeout_ms", 0, _MS, shareable=True),
    Option("pool_timeout_ms", 0, _MS, shareable=True),
    Option("dns_cache_timeout", 60, _int(-1, INT_MAX), shareable=True),
    Option("followlocation", False, checked_flag, shareable=True),
    Option("maxredirs", 9, _int(-1, 0x7FFF), shareable=True),  # libcurl keeps a short
    Option("ssl_verifyhost", True, checked_flag, shareable=True),
    Option("ssl_verifypeer", True, checked_flag, shareable=True),
    Option("cacert", None, checked_path),
    Option("capath", None, checked_path),
    Option("ca_cache_timeout", 86400, _int(-1, INT_MAX), shareable=True),
    Option("sslversion", "default", _choice(*TLS_VERSIONS), shareable=True),
    Option("sslcert", None, checked_path, "SSLCERT", identity=True),
    Option("sslkey", None, checked_path, "SSLKEY", identity=True),
    Option("sslkey_blob", None, checked_blob, "SSLKEY_BLOB", identity=True),
    Option("keypasswd", None, checked_bytes, "KEYPASSWD", identity=True),
    Option("http_version", "none", _choice(*HTTP_VERSIONS), shareable=True),
    Option("http_auth", None, _choice(*AUTHS)),
    Option("username", None, checked_bytes),
    Option("password", None, checked_bytes),
    Option("userpwd", None, checked_bytes),
    Option("proxy", None, checked_proxy),
    Option("interface", None, _text, "INTERFACE", identity=True),
    Option("unix_socket_path", None, checked_path, "UNIX_SOCKET_PATH", identity=True),
    Option("doh_url", None, _doh_url, "DOH_URL", identity=True),
    Option("tcp_fastopen", False, checked_flag, "TCP_FASTOPEN", shareable=True),
    Option("pipewait", True, checked_flag, shareable=True),
    Option("verbose", False, checked_flag, shareable=True),
    Option("decode", True, checked_flag, per_request=True),
    Option("max_response_bytes", None, _int(0, LONG_MAX), shareable=True),
    Option("curl_options", None, _curl_mapping),
    Option("stream", False, checked_flag, per_request=True, only_async=True),
    Option("stream_window", WINDOW, _window, per_request=True, only_async=True),
    Option("flow_control", "auto", _choice("auto", "manual"), per_request=True, only_async=True),
    Option("informational", False, checked_flag, per_request=True, only_async=True),
    Option("stream_body", False, checked_flag, per_request=True, only_async=True),
    Option("upload_window", WINDOW, _int(1, _WINDOW_MAX), per_request=True, only_async=True),
    Option("on_abandon", "abort", _choice("abort", "finish"), per_request=True, only_async=True),
    Option("reply_to", None, _mailbox, per_request=True, only_async=True),
    Option("ref", None, _ref, per_request=True, only_async=True),
)
TABLE: Final[Mapping[str, Option]] = {option.name: option for option in OPTIONS}

_MEANT: Final = {
    "allow_redirects": "followlocation",
    "auth": "http_auth",
    "ca_certs": "cacert",
    "cert": "sslcert",
    "connect_timeout": "connecttimeout_ms",
    "content": "body",
    "cookies": "cookiejar",
    "data": "body",
    "files": "body",
    "follow_redirects": "followlocation",
    "http1": "http_version",
    "http2": "http_version",
    "http3": "http_version",
    "json": "body",
    "key": "sslkey",
    "max_redirects": "maxredirs",
    "pool_timeout": "pool_timeout_ms",
    "proxies": "proxy",
    "read_timeout": "read_timeout_ms",
    "timeout": "timeout_ms",
    "user": "username",
    "verify": "ssl_verifypeer",
    "write_timeout": "write_timeout_ms",
}
"""What users of httpx and requests write, where the nearest name by its letters would be another."""


def unknown_name(name: object) -> str:
    if not isinstance(name, str):
        return "an option's name must be str"
    from difflib import get_close_matches

    near = _MEANT.get(name.lower()) or next(iter(get_close_matches(name.lower(), TABLE, n=1)), None)
    shown = name[:60]
    return f"{shown}: did you mean {near}?" if near else f"{shown}: there is no such option"
