"""Which libcurl to load, and which certificates to trust.

libcurl comes with the extension file of `pycurl`, found without importing the package (7 ms instead of 31).
`KATIPO_LIBCURL=/path/to/libcurl.so.4` names another one, and pycurl is then not touched.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

__all__ = ["LoadedLibrary", "certificate_in", "find_libcurl", "find_trust", "trust_at_load"]

_OLDEST = 0x075700
"""Before 7.87 libcurl does not name its features, and a cancelled lookup blocks a whole worker."""

# Where systems keep their bundle, as Go's crypto/x509 has them (root_linux.go, root_bsd.go, root_darwin.go).
_BUNDLES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
    "/usr/local/etc/ssl/cert.pem",
    "/usr/local/share/certs/ca-root-nss.crt",
)

_HEX = frozenset("0123456789abcdef")


def find_libcurl() -> str:
    """The path of a shared object that is libcurl or is linked to it.

    Raises:
        ImportError: KATIPO_LIBCURL is not set, and pycurl is not installed.
    """
    chosen = os.environ.get("KATIPO_LIBCURL")
    if chosen:
        return chosen
    for path in _pycurl_extensions():
        return path
    raise ImportError(
        "katipo takes libcurl from the pycurl package, which is not installed: pip install pycurl,"
        " or set KATIPO_LIBCURL to the path of a libcurl"
    )


def _pycurl_extensions() -> Iterator[str]:
    import importlib.util
    from importlib.machinery import EXTENSION_SUFFIXES

    try:
        spec = importlib.util.find_spec("pycurl")
    except (ImportError, ValueError):  # ValueError: something else calls itself pycurl in sys.modules
        return
    if spec is None:
        return
    suffixes = tuple(EXTENSION_SUFFIXES)
    for folder in spec.submodule_search_locations or ():
        try:
            names = os.listdir(folder)
        except OSError:
            continue
        for name in sorted(names):
            if name.startswith("_pycurl.") and name.endswith(suffixes):
                yield os.path.join(folder, name)
    if spec.origin is not None and spec.origin.endswith(suffixes):  # before 7.46 the module was the extension itself
        yield spec.origin


def find_trust(environ: Mapping[str, str] | None) -> tuple[str | None, str | None]:
    """The default (CA file, CA directory): SSL_CERT_FILE and SSL_CERT_DIR of `environ`, else the system's bundle, else
    certifi's.

    Both are None where there is none of them: libcurl's own default then counts.
    """
    if environ is not None:
        file, folder = environ.get("SSL_CERT_FILE") or None, environ.get("SSL_CERT_DIR") or None
        if file is None and folder is not None:
            # Where no file is named libcurl takes the one that it was built with, which is not to be trusted here, or
            # is not there at all. A certificate of the folder adds nothing to it; where there is none, nothing can be
            # trusted, and the folder in place of a file makes that the request's error (77).
            return certificate_in(folder) or folder, folder
        if file is not None:
            return file, folder
    for path in _BUNDLES:
        if os.access(path, os.R_OK):
            return path, None
    try:
        import certifi
    except ImportError:
        return None, None
    return certifi.where(), None


@lru_cache(maxsize=1)
def trust_at_load() -> tuple[str | None, str | None]:
    """What requests without trust of their own are checked against: as the environment was when this was first asked."""
    return find_trust(os.environ)


def certificate_in(folders: str) -> str | None:
    """The path of some certificate in folders of certificates, several separated as in PATH; None if there is none.

    Only names as OpenSSL looks for them count, the hash of the subject and a number: other files there are not trusted.
    """
    for folder in folders.split(os.pathsep):
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    stem, dot, number = entry.name.partition(".")
                    if dot and len(stem) == 8 and number.isdecimal() and _HEX.issuperset(stem) and entry.is_file():
                        return entry.path
        except OSError:  # as to OpenSSL, which passes over it
            continue
    return None


class LoadedLibrary:
    """The loaded libcurl as `options` and `features` see it.

    `info`: what the engine says of it; `option`: the engine's lookup of an option's number and kind by name.
    """

    def __init__(self, info: Mapping[str, Any], option: Callable[[str], tuple[int, int] | None]) -> None:
        if info["version_num"] < _OLDEST:
            raise ImportError(f"libcurl {info['version']} at {info['path']} is too old: katipo needs 7.87 or later")
        self.path: str = info["path"]
        self.version: str = info["version"]
        self.version_num: int = info["version_num"]
        self.ssl_version: str | None = info["ssl_version"] or None
        self.protocols: frozenset[str] = frozenset(info["protocols"])
        self.features: frozenset[str] = frozenset(name.lower() for name in info["features"])
        self.default_cainfo, self.default_capath = trust_at_load()
        self.option = option
