"""Proxies from the environment, as curl and the other clients read it.

`http_proxy`, `https_proxy`, `all_proxy`, `no_proxy`: in lower case first, then in upper case. HTTP_PROXY is not believed
where REQUEST_METHOD is set: under CGI it is a header of the client's (CVE-2016-5385).
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from typing import Final, NamedTuple, TypeAlias

from ._curl_options import Refused
from ._proxy import checked_proxy
from .errors import BadOptions
from .url import URL

__all__ = ["Proxies"]

_CACHED: Final = 256
"""Origins whose proxy is remembered. Arbitrary."""

_Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"
_HOST_PORT: Final = re.compile(r"\[([^\[\]]*)\](?::([0-9]+))?|([^:]*)(?::([0-9]+))?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class _Exempt(NamedTuple):
    """One entry of NO_PROXY."""

    name: str  # without the leading dot; "" for a network
    network: _Network | None
    port: int | None

    def covers(self, host: str, address: ipaddress.IPv4Address | ipaddress.IPv6Address | None, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return address is not None and address.version == self.network.version and address in self.network
        return address is None and (host == self.name or host.endswith("." + self.name))


class Proxies:
    """What the environment says, read once. False if that is nothing.

    Raises BadOptions, naming the variable, for a proxy that is none.
    """

    __slots__ = ("_by_scheme", "_exempt", "_found")

    def __init__(self, environ: Mapping[str, str]) -> None:
        found = {scheme: _proxy(environ, scheme) for scheme in ("http", "https")}
        everything, no_proxy = _proxy(environ, "all"), ""
        if any(found.values()) or everything:
            no_proxy = environ.get("no_proxy") or environ.get("NO_PROXY") or ""
        entries = [entry.strip() for entry in no_proxy.split(",")]
        self._by_scheme: dict[str, str] = {}
        if "*" not in entries:
            self._by_scheme = {scheme: proxy or everything for scheme, proxy in found.items() if proxy or everything}
        self._exempt = [exempt for entry in entries if (exempt := _exempt(entry)) is not None]
        self._found: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._by_scheme)

    def __repr__(self) -> str:
        return f"<Proxies for {', '.join(self._by_scheme) or 'nothing'}>"

    def proxy_for(self, url: URL) -> str:
        """The proxy for a URL as the pool takes it; "": direct."""
        origin = url.origin
        proxy = self._found.get(origin)
        if proxy is None:
            proxy = self._by_scheme.get(url.scheme, "")
            if proxy and self._is_exempt(url):
                proxy = ""
            if len(self._found) >= _CACHED:
                self._found.clear()
            self._found[origin] = proxy
        return proxy

    def _is_exempt(self, url: URL) -> bool:
        host = url.raw_host.decode("ascii").rstrip(".")
        address = _address(host.partition("%")[0])
        port = url.port or _DEFAULT_PORTS[url.scheme]
        return any(exempt.covers(host, address, port) for exempt in self._exempt)


def _proxy(environ: Mapping[str, str], scheme: str) -> str:
    name = f"{scheme}_proxy"
    value = environ.get(name)
    if value is None and not (scheme == "http" and "REQUEST_METHOD" in environ):
        name = name.upper()
        value = environ.get(name)
    if not value or not (value := value.strip()):
        return ""
    try:
        checked_proxy(value)
    except Refused as refused:
        raise BadOptions(f"{name} in the environment: {refused.text}") from None
    return value


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _exempt(entry: str) -> _Exempt | None:
    """An entry of NO_PROXY; None for what names nothing."""
    if not entry:
        return None
    try:
        return _Exempt("", ipaddress.ip_network(entry, strict=False), None)  # an address is a network of one
    except ValueError:
        pass
    match = _HOST_PORT.fullmatch(entry)
    if match is None:
        return None
    host, port = match[1] or match[3] or "", match[2] or match[4]
    number = int(port) if port else None
    address = _address(host)
    if address is not None:
        return _Exempt("", ipaddress.ip_network(address), number)
    name = host.removeprefix("*").strip(".").lower()
    if not name.isascii():
        try:
            name = URL(f"http://{name}/").raw_host.decode("ascii")
        except ValueError:
            return None
    return _Exempt(name, None, number) if name else None
