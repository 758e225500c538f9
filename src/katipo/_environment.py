"""Proxies from the environment, as curl and the other clients read it.

`http_proxy`, `https_proxy` and `all_proxy` (for schemes without one of their own) and `no_proxy`, in lower case or else
in upper case; one that is set and empty counts, and says that there is none. HTTP_PROXY is not believed where
REQUEST_METHOD is set: under CGI it is a header of the client's ("httpoxy", CVE-2016-1000110).

Entries of NO_PROXY, separated by commas or white space:

    *                       everything
    example.com             the name and every name below it; so do .example.com and *.example.com
    192.0.2.1, ::1, [::1]   an address
    192.0.2.0/24            a range of addresses
    ...:8443                behind a name or an address (IPv6 in brackets): this port only

Names are not looked up: an address is exempt only where a URL has an address. An entry that is a name of no such form
("192.168.*") exempts nothing, as with curl; an impossible range or port is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from ._curl_options import Refused
from ._pattern import pattern
from ._proxy import checked_proxy
from .errors import BadOptions, InvalidURL
from .url import URL

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

    _Address: TypeAlias = IPv4Address | IPv6Address
    _Network: TypeAlias = IPv4Network | IPv6Network

__all__ = ["Proxies"]

_CACHED: Final = 256
"""Origins whose proxy is remembered. Arbitrary."""

_SEPARATOR: Final = pattern(r"[\s,]+")
_HOST_PORT: Final = pattern(r"(?:\[([^\[\]]*)\]|([^:\[\]]*))(?::([0-9]{1,10}))?")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}


class _Exempt(NamedTuple):
    """One entry of NO_PROXY, `*` aside."""

    name: str
    """In lower case, without dots around it; "" where there is a network."""
    network: _Network | None
    """An address is a network of one."""
    port: int | None

    def covers(self, host: str, address: _Address | None, port: int) -> bool:
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            return address is not None and address in self.network
        return address is None and (host == self.name or host.endswith("." + self.name))


class Proxies:
    """The proxies that an environment names, read once. False where there are none. Its repr shows none of them.

    Raises:
        BadOptions: a proxy that would be used is none, or an entry of NO_PROXY is impossible; it names the variable.
    """

    __slots__ = ("_by_scheme", "_exempt", "_known")

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._by_scheme: dict[str, str] = {}
        self._exempt: list[_Exempt] = []
        self._known: dict[str, str] = {}  # by origin
        name, value = _variable(environ, "no_proxy")
        entries = _SEPARATOR.split(value)
        if "*" in entries:
            return
        for scheme in _DEFAULT_PORTS:
            if proxy := _proxy(environ, scheme) or _proxy(environ, "all"):
                self._by_scheme[scheme] = proxy
        if self._by_scheme:
            self._exempt = [_exempt(name, number, entry) for number, entry in enumerate(filter(None, entries), 1)]

    def __bool__(self) -> bool:
        return bool(self._by_scheme)

    def __repr__(self) -> str:
        return f"<Proxies for {', '.join(self._by_scheme) or 'nothing'}, but for {len(self._exempt)} exemptions>"

    def proxy_for(self, url: URL) -> str:
        """The proxy for a URL, as the pool's option takes it; "": direct."""
        origin = url.origin
        proxy = self._known.get(origin)
        if proxy is None:
            proxy = self._by_scheme.get(url.scheme, "")
            if proxy and self._is_exempt(url):
                proxy = ""
            if len(self._known) >= _CACHED:
                self._known.clear()
            self._known[origin] = proxy
        return proxy

    def _is_exempt(self, url: URL) -> bool:
        host = url.raw_host.decode("ascii").removesuffix(".")
        address = _address(host.partition("%")[0])
        port = url.port or _DEFAULT_PORTS[url.scheme]
        return any(exempt.covers(host, address, port) for exempt in self._exempt)


def _variable(environ: Mapping[str, str], name: str) -> tuple[str, str]:
    """A variable's name as it is written, and its value, "" where it is not set."""
    if name not in environ and not (name == "http_proxy" and "REQUEST_METHOD" in environ):
        name = name.upper()
    return name, environ.get(name, "").strip()


def _proxy(environ: Mapping[str, str], scheme: str) -> str:
    name, value = _variable(environ, f"{scheme}_proxy")
    try:
        checked_proxy(value)
    except Refused as refused:
        raise BadOptions(f"{name} in the environment: {refused.text}") from None
    return value


def _address(text: str) -> _Address | None:
    from ipaddress import IPv6Address, ip_address

    try:
        address = ip_address(text)
    except ValueError:
        return None
    # To whoever is connected to it, ::ffff:192.0.2.1 is 192.0.2.1.
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _exempt(variable: str, number: int, entry: str) -> _Exempt:
    from ipaddress import ip_network

    def refused(what: str) -> BadOptions:
        return BadOptions(f"{variable} in the environment: entry {number} {what}")

    if "/" in entry:
        try:
            return _Exempt("", ip_network(entry, strict=False), None)
        except ValueError:
            raise refused("is no range of addresses") from None
    if (address := _address(entry.partition("%")[0])) is not None:
        return _Exempt("", ip_network(address), None)
    match = _HOST_PORT.fullmatch(entry)
    if match is None:
        raise refused("is no host name or address with or without a port")
    bracketed, plain, digits = match.groups()
    port = None if digits is None else int(digits)
    if port is not None and not 1 <= port <= 65535:
        raise refused("has an impossible port")
    if (address := _address((bracketed or plain).partition("%")[0])) is not None:
        return _Exempt("", ip_network(address), port)
    if bracketed is not None:
        raise refused("has no IPv6 address in its brackets")
    return _Exempt(_ascii(plain.removeprefix("*.").strip(".").lower()), None, port)


def _ascii(name: str) -> str:
    """An international name as it is in a URL that is sent; any other as it is."""
    if not name.isascii():
        try:
            return URL(f"http://{name}/").raw_host.decode("ascii")
        except InvalidURL:
            pass  # no URL can have this host: the entry exempts nothing
    return name
