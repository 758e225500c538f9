"""The `proxy` option: read as a URL, with its userinfo kept apart, so that nothing that shows the proxy shows a
password.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Final

from ._curl_options import Assembly, Refused, checked_bytes, kind_of
from ._frozen import dataclass
from ._pattern import pattern

_SCHEMES: Final = ("http", "https", "socks4", "socks4a", "socks5", "socks5h")
_HOST: Final = pattern(r"[A-Za-z0-9._~!$&'()*+,;=%-]+|\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9._~-]+)?\]")


@dataclass(frozen=True, slots=True)
class Proxy:
    scheme: str
    url: bytes
    """Without userinfo."""
    username: bytes | None
    password: bytes | None


def checked_proxy(value: object) -> Proxy | None:
    """Read a proxy's URL; "" is None. Without a scheme it is an http proxy, without a port libcurl's 1080 (https: 443).

    `socks5h://localhost/path` is a socket of that path, as libcurl has it. User and password are percent-decoded.
    """
    if not isinstance(value, str):
        raise Refused(f"must be str or None, not {kind_of(value)}")
    if not value:
        return None
    if not value.isascii():
        raise Refused("must be ASCII (an international host name in its xn-- form, other characters percent-encoded)")
    if any(c <= " " or c == "\x7f" for c in value):
        raise Refused("must be without white space and control characters")
    scheme, found, rest = value.partition("://")
    if not found:
        scheme, rest = "http", value
    scheme = scheme.lower()
    if scheme not in _SCHEMES:
        raise Refused("the scheme must be one of " + ", ".join(_SCHEMES))
    authority, slash, path = rest.partition("/")
    userinfo, at, address = authority.rpartition("@")
    # "?" and "#" would end the authority too (RFC 3986 section 3.2), and "u:p/w@host" would leave a password in the
    # path.
    if "?" in address or "#" in address or ("@" in path and not at):
        raise Refused("is no URL of a proxy (in a user or password, /, ?, # and @ must be percent-encoded)")
    if path and not (scheme.startswith("socks") and address == "localhost"):
        raise Refused("must not have a path (but for socks://localhost/path/of/a/socket)")
    _check_address(address)
    username = password = None
    if userinfo:
        user, colon, word = userinfo.partition(":")
        username = _decoded(user)
        password = _decoded(word) if colon else None
    url = f"{scheme}://{address}{slash}{path}" if path else f"{scheme}://{address}"
    return Proxy(scheme, url.encode(), username, password)


def _check_address(address: str) -> None:
    host = _HOST.match(address)
    port = address[host.end() :] if host else address
    if host is None or (port and not port.startswith(":")):
        raise Refused("has no valid host")
    digits = port[1:]
    if digits and not (digits.isdigit() and len(digits) <= 5 and 0 < int(digits) <= 65535):
        raise Refused("has no valid port")


def _decoded(text: str) -> bytes:
    from urllib.parse import unquote_to_bytes

    return checked_bytes(unquote_to_bytes(text))


def add_proxy(assembly: Assembly, proxy: Proxy | None, curl_options: Iterable[str]) -> None:
    """Tell libcurl of the proxy, or that there is none: left alone, it would read the environment."""
    assembly.set("NOPROXY", b"")
    if proxy is None:
        assembly.set("PROXY", b"")
        return
    assembly.flags.add("proxied")
    assembly.set("PROXY", proxy.url, identity=True)
    if proxy.username is not None:
        assembly.set("PROXYUSERNAME", proxy.username, identity=True)
    if proxy.password is not None:
        assembly.set("PROXYPASSWORD", proxy.password, identity=True)
    if proxy.scheme == "https":
        if "https-proxy" not in assembly.library.features:
            assembly.problems.add("proxy: this libcurl has no HTTPS proxies", missing=True)
        own = {name.upper().removeprefix("CURLOPT_") for name in curl_options}
        if not own & {"PROXY_CAINFO", "PROXY_CAPATH", "PROXY_CAINFO_BLOB"}:
            # `cacert` and its like are for the server; a proxy's certificate is checked against the default.
            for name, path in (
                ("PROXY_CAINFO", assembly.library.default_cainfo),
                ("PROXY_CAPATH", assembly.library.default_capath),
            ):
                if path:
                    assembly.set(name, os.fsencode(path))
