"""What the loaded libcurl can do, and what of katipo's it cannot."""

from __future__ import annotations

from ._frozen import dataclass
from .pool import loaded_library

__all__ = ["Features", "features"]

_CODINGS = (("gzip", "libz"), ("deflate", "libz"), ("br", "brotli"), ("zstd", "zstd"))
_AUTH_SCHEMES = (("basic", None), ("bearer", None), ("digest", None), ("ntlm", "ntlm"), ("negotiate", "spnego"))
_WINDOWS = 0x080D00
"""Windows hold from libcurl 8.13: versions before it stall or break on pause, which cannot be repaired from outside."""

_MISSED = (
    ("ssl", "TLS: https URLs fail"),
    ("http2", "HTTP/2"),
    ("http3", "HTTP/3"),
    ("libz", "gzip and deflate"),
    ("brotli", "brotli"),
    ("zstd", "zstd"),
    ("ntlm", "NTLM authentication"),
    ("spnego", "Negotiate (Kerberos) authentication"),
    ("https-proxy", "HTTPS proxies"),
    ("psl", "the public suffix list: cookies for whole top-level domains are not refused"),
    ("asynchdns", "name lookups beside the transfers: a slow lookup holds up the others"),
)


@dataclass(frozen=True, slots=True)
class Features:
    """What this katipo, with this libcurl, can do."""

    libcurl: str
    """libcurl's version, as in "8.23.0"."""
    path: str
    """The shared object that libcurl's functions were found through."""
    ssl: str | None
    """The TLS library and its version; None: there is none."""
    protocols: frozenset[str]
    """What libcurl was built with. Only http and https are ever used."""
    http_versions: tuple[str, ...]
    """As `Response.http_version` has them."""
    codings: tuple[str, ...]
    """Content codings that are decoded."""
    auth_schemes: tuple[str, ...]
    missing: tuple[str, ...]
    """What katipo could do with another libcurl, for people to read."""


def features() -> Features:
    """What the loaded libcurl can do; loads it where that has not happened yet.

    Raises:
        ImportError: there is no libcurl to load.
    """
    library = loaded_library()
    have = library.features
    versions = [("HTTP/1.0", None), ("HTTP/1.1", None), ("HTTP/2", "http2"), ("HTTP/3", "http3")]
    missing = [text for name, text in _MISSED if name not in have]
    if library.version_num < _WINDOWS:
        missing.append("flow control that holds: windows need libcurl 8.13")
    return Features(
        libcurl=library.version,
        path=library.path,
        ssl=library.ssl_version,
        protocols=library.protocols,
        http_versions=tuple(name for name, need in versions if need is None or need in have),
        codings=tuple(name for name, need in _CODINGS if need in have),
        auth_schemes=tuple(name for name, need in _AUTH_SCHEMES if need is None or need in have),
        missing=tuple(missing),
    )
