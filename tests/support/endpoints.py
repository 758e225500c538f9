"""A server as a test sees it that runs over HTTP/1.1, 2 and 3: how to make a URL, and which options choose the version."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias, TypedDict, cast
from urllib.parse import quote, urlencode

VERSIONS = ("1.1", "2", "3")

Version: TypeAlias = Literal["1.1", "2", "3"]
OptionVersion: TypeAlias = Literal["1.1", "2", "3-only"]


class EndpointOptions(TypedDict):
    """Options of a request that choose the version and trust the tests' CA."""

    http_version: OptionVersion
    cacert: str


class ClientEndpointOptions(TypedDict):
    """Arguments of a client that choose the version and trust the tests' CA."""

    verify: str
    http1: bool
    http2: bool
    http3: bool


@dataclass(frozen=True)
class Endpoint:
    """A base URL and the protocol version to use there."""

    base: str
    version: Version
    cacert: str

    def __call__(self, path: str, **query: object) -> str:
        """The URL of a path, with a query; names and values are escaped."""
        return self.base + path + (f"?{urlencode(query, quote_via=quote)}" if query else "")

    @property
    def option(self) -> OptionVersion:
        """The pool's `http_version` for exactly this version."""
        return "3-only" if self.version == "3" else self.version

    @property
    def options(self) -> EndpointOptions:
        """Options of a request: `pool.get(endpoint("/count"), **endpoint.options)`."""
        return {"http_version": self.option, "cacert": self.cacert}

    @property
    def client_options(self) -> ClientEndpointOptions:
        """Arguments of a client: `Client(**endpoint.client_options)`."""
        return {
            "verify": self.cacert,
            "http1": self.version == "1.1",
            "http2": self.version == "2",
            "http3": self.version == "3",
        }

    @property
    def http_version(self) -> str:
        """What `Response.http_version` says."""
        return {"1.1": "HTTP/1.1", "2": "HTTP/2", "3": "HTTP/3"}[self.version]

    @classmethod
    def make(cls, base: str, version: str, ca: Path) -> "Endpoint":
        """An endpoint; `version` is one of VERSIONS."""
        return cls(base, cast("Version", version), str(ca))
