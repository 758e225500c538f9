"""What the pool's requests may be called with: types for checkers, which are importable at run time.

Annotations are evaluated here, unlike elsewhere: a TypedDict compiles each that is a string, which takes ten times as long.
"""

import os
from collections.abc import Hashable, ItemsView, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, TypeAlias, TypedDict

from ._compat import Buffer
from .cookies import CookieJar

if TYPE_CHECKING:
    from .mailbox import Mailbox

__all__ = ["AsyncRequestOptions", "CurlOptions", "FormField", "FormPairs", "HeaderOptions", "RequestOptions"]

Path: TypeAlias = str | bytes | os.PathLike[str] | os.PathLike[bytes]
HeaderValue: TypeAlias = str | bytes | None
HeaderOptions: TypeAlias = (
    Mapping[str, HeaderValue] | Mapping[bytes, HeaderValue] | Iterable[tuple[str | bytes, HeaderValue]]
)
FormValue: TypeAlias = str | bytes | int | float | None
FormField: TypeAlias = FormValue | Sequence[FormValue]
# For url.Pairs's reason.
FormPairs: TypeAlias = Sequence[tuple[str, FormField]] | Iterator[tuple[str, FormField]] | ItemsView[str, FormField]
BodyOption: TypeAlias = Buffer | str | Mapping[str, FormField] | FormPairs
CurlOptions: TypeAlias = Mapping[str, int | str | bytes | os.PathLike[str] | Sequence[str | bytes]]
HttpVersion: TypeAlias = Literal["none", "1.0", "1.1", "2", "2tls", "2-prior-knowledge", "3", "3-only"]
SslVersion: TypeAlias = Literal["default", "1.0", "1.1", "1.2", "1.3"]
HttpAuth: TypeAlias = Literal["basic", "digest", "ntlm", "negotiate"]


class RequestOptions(TypedDict, total=False):
    """Options of every request. Names ending in `_ms` are milliseconds, other times seconds."""

    headers: HeaderOptions | None
    cookiejar: CookieJar | None
    body: BodyOption | None
    connecttimeout_ms: int
    timeout_ms: int
    read_timeout_ms: int
    write_timeout_ms: int
    pool_timeout_ms: int
    dns_cache_timeout: int
    followlocation: bool
    maxredirs: int
    ssl_verifyhost: bool
    ssl_verifypeer: bool
    cacert: Path | None
    capath: Path | None
    ca_cache_timeout: int
    sslversion: SslVersion
    sslcert: Path | None
    sslkey: Path | None
    sslkey_blob: Buffer | None
    keypasswd: str | bytes | None
    http_version: HttpVersion
    http_auth: HttpAuth | None
    username: str | bytes | None
    password: str | bytes | None
    userpwd: str | bytes | None
    proxy: str | None
    interface: str | None
    unix_socket_path: Path | None
    doh_url: str | None
    tcp_fastopen: bool
    pipewait: bool
    verbose: bool
    decode: bool
    max_response_bytes: int | None
    curl_options: CurlOptions | None


class AsyncRequestOptions(RequestOptions, total=False):
    """Options of the `async_` calls: the request's, and how its two bodies travel."""

    stream: bool
    stream_window: int | None
    flow_control: Literal["auto", "manual"]
    informational: bool
    stream_body: bool
    upload_window: int
    on_abandon: Literal["abort", "finish"]
    reply_to: "Mailbox | None"
    ref: Hashable
