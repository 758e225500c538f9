"""AWS Signature Version 4 in the Authorization header, as a calculation: no clock, no request is touched.

After AWS's "Create a signed AWS API request" (IAM User Guide) and, for S3, "Authenticating Requests (AWS Signature
Version 4)". What is signed is read as a server reads it: from the path and the query that are on the wire.

Imported where the first request is signed: hashlib costs more than most programs that never sign should pay.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable
from typing import Final, NamedTuple
from urllib.parse import quote_from_bytes, unquote_to_bytes

ALGORITHM: Final = "AWS4-HMAC-SHA256"
UNSIGNED_PAYLOAD: Final = "UNSIGNED-PAYLOAD"

S3_SERVICES: Final = frozenset({"s3", "s3-object-lambda", "s3-outposts", "s3express"})
"""Their paths are names of objects: neither normalised nor encoded twice; and their payload hash is a header."""

_UNRESERVED: Final = "-_.~"  # beside letters and digits, which quote never encodes (RFC 3986 2.3)

_UNSIGNED_HEADERS: Final = frozenset(
    (
        # Set here, or by whoever carries the request: proxies and load balancers change them, libcurl adds some.
        b"accept-encoding",
        b"authorization",
        b"connection",
        b"expect",
        b"keep-alive",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
        b"user-agent",
        b"x-amzn-trace-id",
    )
)


class Scope(NamedTuple):
    """For what a signature counts. `timestamp`: of the request, as 20150830T123600Z."""

    timestamp: str
    region: str
    service: str

    def __str__(self) -> str:
        return f"{self.timestamp[:8]}/{self.region}/{self.service}/aws4_request"


def payload_hash(content: bytes) -> str:
    """The hash of a body as it stands in a canonical request and in X-Amz-Content-SHA256."""
    return hashlib.sha256(content).hexdigest()


def canonical_path(path: bytes, service: str) -> str:
    """The path of a canonical request. `path`: as it is sent, without the query.

    For S3 the path as it was meant, encoded once. For all other services what was sent is normalised and encoded once
    more: servers do not decode it before they check.
    """
    if service in S3_SERVICES:
        return quote_from_bytes(unquote_to_bytes(path), "/" + _UNRESERVED) or "/"
    segments: list[bytes] = []
    for segment in path.split(b"/"):
        if segment == b"..":
            del segments[-1:]
        elif segment not in (b"", b"."):
            segments.append(segment)
    normal = b"/" + b"/".join(segments)
    if segments and path.endswith((b"/", b"/.", b"/..")):
        normal += b"/"
    return quote_from_bytes(normal, "/" + _UNRESERVED)


def canonical_query(query: bytes) -> str:
    """The query of a canonical request: decoded, encoded strictly, sorted by name and then by value.

    `query`: as it is sent. A "+" is a space, as form-encoding has it and AWS's servers and SDKs read it.
    """
    pairs: list[tuple[str, str]] = []
    for part in query.split(b"&"):
        if part:
            name, _, value = part.replace(b"+", b" ").partition(b"=")
            pairs.append((_encoded(name), _encoded(value)))
    return "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _encoded(part: bytes) -> str:
    return quote_from_bytes(unquote_to_bytes(part), _UNRESERVED)


def canonical_headers(headers: Iterable[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """The lines of the headers that are signed, and their names.

    White space at the ends goes, and runs of it become one space; the values of a name keep their order.
    """
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        lower = name.lower()
        if lower not in _UNSIGNED_HEADERS:
            values.setdefault(lower, []).append(b" ".join(value.split()))
    names = sorted(values)
    return b"".join(name + b":" + b",".join(values[name]) + b"\n" for name in names), b";".join(names)


def canonical_request(
    method: str, target: bytes, headers: Iterable[tuple[bytes, bytes]], hashed: str, service: str
) -> bytes:
    """The text that stands for a request.

    `target`: path and query as they are sent. `headers`: Host among them. `hashed`: of the payload.
    """
    path, _, query = target.partition(b"?")
    lines, names = canonical_headers(headers)
    return b"\n".join(
        (
            method.encode("ascii"),
            canonical_path(path, service).encode("ascii"),
            canonical_query(query).encode("ascii"),
            lines,
            names,
            hashed.encode("ascii"),
        )
    )


def string_to_sign(canonical: bytes, scope: Scope) -> str:
    """What the signature is made of."""
    return f"{ALGORITHM}\n{scope.timestamp}\n{scope}\n{hashlib.sha256(canonical).hexdigest()}"


def signature(secret_key: str, text: str, scope: Scope) -> str:
    """The signature of a string to sign."""
    key = b"AWS4" + secret_key.encode("utf-8")
    for part in (scope.timestamp[:8], scope.region, scope.service, "aws4_request"):
        key = hmac.digest(key, part.encode("utf-8"), "sha256")
    return hmac.digest(key, text.encode("utf-8"), "sha256").hex()


def authorization(
    access_key: str,
    secret_key: str,
    scope: Scope,
    *,
    method: str,
    target: bytes,
    headers: Iterable[tuple[bytes, bytes]],
    hashed: str,
) -> str:
    """The value of Authorization; arguments as in canonical_request."""
    headers = list(headers)
    canonical = canonical_request(method, target, headers, hashed, scope.service)
    signed = signature(secret_key, string_to_sign(canonical, scope), scope)
    names = canonical_headers(headers)[1].decode("ascii")
    return f"{ALGORITHM} Credential={access_key}/{scope}, SignedHeaders={names}, Signature={signed}"
