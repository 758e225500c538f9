"""Everything that katipo raises, and the one table from libcurl's codes to classes.

    Error
      HTTPError
        RequestError
          TransportError
            TimeoutException (also TimeoutError)
              ConnectTimeout  ReadTimeout  WriteTimeout  PoolTimeout  TotalTimeout
            NetworkError (also ConnectionError)
              ConnectError
                TLSError
              ReadError
              WriteError
            ProtocolError
              LocalProtocolError
              RemoteProtocolError
            ProxyError
            WorkerDied
            Overload
          Cancelled
          UnsupportedProtocol
          DecodingError
          TooManyRedirects
          ResponseTooLarge
        HTTPStatusError
      BadOptions (also ValueError)
      InvalidURL (also ValueError)
      AwaitTimeout (also TimeoutError)
      PoolClosed
      MailboxClosed
      CookieConflict
      StreamError (also RuntimeError)
        StreamConsumed
        StreamClosed
        ResponseNotRead

Every error has a `code`: the name of libcurl's CURLE code in lower case, or one of katipo's own. A request that is not
sent because its arguments are wrong raises BadOptions, InvalidURL or UnsupportedProtocol at the call; all else is the
outcome of a request that was accepted.

Errors pickle and copy with everything they carry except their cause and traceback. What looks like a credential in a
URL is taken out of every message when the error is made, so callers need not care where a text came from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Final

from ._pattern import pattern

if TYPE_CHECKING:
    from .metrics import Metrics
    from .request import Request
    from .response import Response

__all__ = [
    "AwaitTimeout",
    "BadOptions",
    "Cancelled",
    "ConnectError",
    "ConnectTimeout",
    "CookieConflict",
    "DecodingError",
    "Error",
    "HTTPError",
    "HTTPStatusError",
    "InvalidURL",
    "LocalProtocolError",
    "MailboxClosed",
    "NetworkError",
    "Overload",
    "PoolClosed",
    "PoolTimeout",
    "ProtocolError",
    "ProxyError",
    "ReadError",
    "ReadTimeout",
    "RemoteProtocolError",
    "RequestError",
    "ResponseNotRead",
    "ResponseTooLarge",
    "StreamClosed",
    "StreamConsumed",
    "StreamError",
    "TLSError",
    "TimeoutException",
    "TooManyRedirects",
    "TotalTimeout",
    "TransportError",
    "UnsupportedProtocol",
    "WorkerDied",
    "WriteError",
    "WriteTimeout",
]

HIDDEN: Final = "[secure]"
"""What stands in a repr or a message in place of a secret (as in httpx)."""

_SECRET_NAME: Final = pattern(
    r"cookie|token|secret|passw|pwd|authoriz|signature|credential|session|jwt|api[-_.]?key"
    r"|(?:^|[-_.])(?:auth|key|sig)(?:$|[-_.])",
    re.IGNORECASE,
)
_USERINFO: Final = pattern(r"//[^/?#\s]*@")
_QUERY_VALUE: Final = pattern(r"([?&;])([^?&;=#\s'\"]+)=([^&;#\s'\"]+)")


def is_secret_name(name: str) -> bool:
    """Whether the value of a header or a query parameter of this name is to be hidden in a repr."""
    return _SECRET_NAME.search(name) is not None


def _hide_value(match: re.Match[str]) -> str:
    return f"{match[1]}{match[2]}={HIDDEN}" if is_secret_name(match[2]) else match[0]


def redact(text: str) -> str:
    """`text` with the userinfo of URLs, and the values of query parameters with telling names, hidden."""
    if "//" in text and "@" in text:
        text = _USERINFO.sub(f"//{HIDDEN}@", text)
    if "=" in text:
        text = _QUERY_VALUE.sub(_hide_value, text)
    return text


def _restore(cls: type[Error], args: tuple[Any, ...], state: dict[str, Any]) -> Error:
    error = cls.__new__(cls, *args)
    error.args = args
    error.__dict__.update(state)
    return error


class Error(Exception):
    """The base of everything katipo raises.

    `message`: for people; URLs in it lose their userinfo. `code`: left out, the class's own.
    """

    default_code: ClassVar[str] = "error"
    code: str
    message: str

    def __init__(self, message: str = "", *, code: str | None = None) -> None:
        self.message = redact(message)
        self.code = self.default_code if code is None else code
        super().__init__(self.message)

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, code={self.code!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Not through __init__: keyword arguments, and subclasses that change its signature, would be lost.
        return _restore, (type(self), self.args, self.__dict__)


class HTTPError(Error):
    """A request that failed, or a response whose status says so."""


class RequestError(HTTPError):
    """A request that got no usable response.

    `curl_code`: libcurl's number, None where libcurl had no part in it. `request`, `metrics`: None where they are not
    known. `request_sent`: False only if it is certain that no byte of the request has left, so that it is safe to send
    again; left out, the class's own.
    """

    default_sent: ClassVar[bool] = True
    curl_code: int | None
    request: Request | None
    metrics: Metrics | None
    request_sent: bool

    def __init__(
        self,
        message: str = "",
        *,
        code: str | None = None,
        curl_code: int | None = None,
        request: Request | None = None,
        metrics: Metrics | None = None,
        request_sent: bool | None = None,
    ) -> None:
        super().__init__(message, code=code)
        self.curl_code = curl_code
        self.request = request
        self.metrics = metrics
        self.request_sent = self.default_sent if request_sent is None else request_sent


class TransportError(RequestError):
    """The way to the server, or the talk with it, failed."""


class TimeoutException(TransportError, TimeoutError):
    """One of the request's clocks ran out. The class says which clock, not the phase it was in."""

    default_code = "operation_timedout"


class ConnectTimeout(TimeoutException):
    """No connection in time: lookup, TCP or QUIC, proxy and TLS together. Waiting for a turn does not count."""

    default_sent = False


class ReadTimeout(TimeoutException):
    """Nothing came from the peer for as long as the read timeout."""


class WriteTimeout(TimeoutException):
    """The peer took nothing for as long as the write timeout."""


class PoolTimeout(TimeoutException):
    """No turn for a connection in time."""

    default_sent = False


class TotalTimeout(TimeoutException):
    """The time for everything, from submission on, is over."""


class NetworkError(TransportError, ConnectionError):
    """The network failed."""

    default_code = "recv_error"


class ConnectError(NetworkError):
    """No connection could be made."""

    default_code = "couldnt_connect"
    default_sent = False


class TLSError(ConnectError):
    """TLS failed: a certificate that does not verify, no common version, an unreadable key."""

    default_code = "ssl_connect_error"


class ReadError(NetworkError):
    """Receiving failed, or the connection was lost."""

    default_code = "recv_error"


class WriteError(NetworkError):
    """Sending failed."""

    default_code = "send_error"


class ProtocolError(TransportError):
    """HTTP was not spoken as it should be."""

    default_code = "weird_server_reply"


class LocalProtocolError(ProtocolError):
    """By this side: a streamed body shorter or longer than its Content-Length."""

    default_code = "upload_failed"


class RemoteProtocolError(ProtocolError):
    """By the server: no reply, a malformed one, a part of one, HTTP/0.9."""

    default_code = "weird_server_reply"


class ProxyError(TransportError):
    """The proxy could not be reached, or refused."""

    default_code = "proxy"
    default_sent = False


class WorkerDied(TransportError):
    """The worker that drove the request met a fatal error, or stayed in the parent of a fork."""

    default_code = "worker_died"


class Overload(TransportError):
    """Every worker has `max_in_flight` requests already. Nothing was sent."""

    default_code = "overload"
    default_sent = False


class Cancelled(RequestError):
    """The request was cancelled on this side."""

    default_code = "cancelled"


class UnsupportedProtocol(RequestError):
    """A URL without a scheme, or with another one than http and https."""

    default_code = "unsupported_protocol"
    default_sent = False


class DecodingError(RequestError):
    """The body is not what its Content-Encoding says (RFC 9110 8.4)."""

    default_code = "bad_content_encoding"


class TooManyRedirects(RequestError):
    """More redirects than allowed."""

    default_code = "too_many_redirects"


class ResponseTooLarge(RequestError):
    """More bytes than `max_response_bytes`, or a response beyond libcurl's own bounds."""

    default_code = "filesize_exceeded"


class HTTPStatusError(HTTPError):
    """A status outside 2xx, where that counts as an error. `request` is None if the response was made without one."""

    default_code = "http_returned_error"
    request: Request | None
    response: Response

    def __init__(
        self, message: str = "", *, request: Request | None, response: Response, code: str | None = None
    ) -> None:
        super().__init__(message, code=code)
        self.request = request
        self.response = response


class BadOptions(Error, ValueError):
    """Options of the wrong name, kind or combination. The message names every offender."""

    default_code = "bad_opts"


class InvalidURL(Error, ValueError):
    """A malformed URL. The message shows nothing of what may have been meant as userinfo."""

    default_code = "url_malformat"


class AwaitTimeout(Error, TimeoutError):
    """The caller's own time to wait is over. The request goes on."""

    default_code = "await_timeout"


class PoolClosed(Error):
    """The pool is closed, or was while the request was in flight."""

    default_code = "pool_closed"


class MailboxClosed(Error):
    """The mailbox is closed, and everything in it has been taken."""

    default_code = "mailbox_closed"


class CookieConflict(Error):
    """Several cookies of the name that was asked for: the domain or the path has to say which."""

    default_code = "cookie_conflict"


class StreamError(Error, RuntimeError):
    """A handle or a stream was used in a way that its request does not allow."""

    default_code = "stream_error"


class StreamConsumed(StreamError):
    """A stream can be read once, by one consumer."""

    default_code = "stream_consumed"


class StreamClosed(StreamError):
    """The request is answered: nothing more can be sent or read."""

    default_code = "stream_closed"


class ResponseNotRead(StreamError):
    """This is known only when the body has been read to its end."""

    default_code = "response_not_read"


CURL_ERRORS: Final[Mapping[int, tuple[str, type[RequestError]]]] = MappingProxyType(
    {
        1: ("unsupported_protocol", UnsupportedProtocol),
        2: ("failed_init", TransportError),
        3: ("url_malformat", TransportError),
        4: ("not_built_in", TransportError),
        5: ("couldnt_resolve_proxy", ProxyError),
        6: ("couldnt_resolve_host", ConnectError),
        7: ("couldnt_connect", ConnectError),
        8: ("weird_server_reply", RemoteProtocolError),
        9: ("remote_access_denied", TransportError),
        10: ("ftp_accept_failed", TransportError),
        11: ("ftp_weird_pass_reply", TransportError),
        12: ("ftp_accept_timeout", TransportError),
        13: ("ftp_weird_pasv_reply", TransportError),
        14: ("ftp_weird_227_format", TransportError),
        15: ("ftp_cant_get_host", TransportError),
        16: ("http2", RemoteProtocolError),
        17: ("ftp_couldnt_set_type", TransportError),
        18: ("partial_file", RemoteProtocolError),
        19: ("ftp_couldnt_retr_file", TransportError),
        20: ("obsolete20", TransportError),
        21: ("quote_error", TransportError),
        22: ("http_returned_error", TransportError),
        23: ("write_error", TransportError),
        24: ("obsolete24", TransportError),
        25: ("upload_failed", TransportError),
        26: ("read_error", TransportError),
        27: ("out_of_memory", TransportError),
        28: ("operation_timedout", TotalTimeout),
        29: ("obsolete29", TransportError),
        30: ("ftp_port_failed", TransportError),
        31: ("ftp_couldnt_use_rest", TransportError),
        32: ("obsolete32", TransportError),
        33: ("range_error", TransportError),
        34: ("obsolete34", TransportError),
        35: ("ssl_connect_error", TLSError),
        36: ("bad_download_resume", TransportError),
        37: ("file_couldnt_read_file", TransportError),
        38: ("ldap_cannot_bind", TransportError),
        39: ("ldap_search_failed", TransportError),
        40: ("obsolete40", TransportError),
        41: ("obsolete41", TransportError),
        42: ("aborted_by_callback", TransportError),
        43: ("bad_function_argument", TransportError),
        44: ("obsolete44", TransportError),
        45: ("interface_failed", ConnectError),
        46: ("obsolete46", TransportError),
        47: ("too_many_redirects", TooManyRedirects),
        48: ("unknown_option", TransportError),
        49: ("setopt_option_syntax", TransportError),
        50: ("obsolete50", TransportError),
        51: ("obsolete51", TransportError),
        52: ("got_nothing", RemoteProtocolError),
        53: ("ssl_engine_notfound", TLSError),
        54: ("ssl_engine_setfailed", TLSError),
        55: ("send_error", WriteError),
        56: ("recv_error", ReadError),
        57: ("obsolete57", TransportError),
        58: ("ssl_certproblem", TLSError),
        59: ("ssl_cipher", TLSError),
        60: ("peer_failed_verification", TLSError),
        61: ("bad_content_encoding", DecodingError),
        62: ("obsolete62", TransportError),
        63: ("filesize_exceeded", ResponseTooLarge),
        64: ("use_ssl_failed", TLSError),
        65: ("send_fail_rewind", WriteError),
        66: ("ssl_engine_initfailed", TLSError),
        67: ("login_denied", TransportError),
        68: ("tftp_notfound", TransportError),
        69: ("tftp_perm", TransportError),
        70: ("remote_disk_full", TransportError),
        71: ("tftp_illegal", TransportError),
        72: ("tftp_unknownid", TransportError),
        73: ("remote_file_exists", TransportError),
        74: ("tftp_nosuchuser", TransportError),
        75: ("obsolete75", TransportError),
        76: ("obsolete76", TransportError),
        77: ("ssl_cacert_badfile", TLSError),
        78: ("remote_file_not_found", TransportError),
        79: ("ssh", TransportError),
        80: ("ssl_shutdown_failed", TLSError),
        81: ("again", TransportError),
        82: ("ssl_crl_badfile", TLSError),
        83: ("ssl_issuer_error", TLSError),
        84: ("ftp_pret_failed", TransportError),
        85: ("rtsp_cseq_error", TransportError),
        86: ("rtsp_session_error", TransportError),
        87: ("ftp_bad_file_list", TransportError),
        88: ("chunk_failed", TransportError),
        89: ("no_connection_available", TransportError),
        90: ("ssl_pinnedpubkeynotmatch", TLSError),
        91: ("ssl_invalidcertstatus", TLSError),
        92: ("http2_stream", RemoteProtocolError),
        93: ("recursive_api_call", TransportError),
        94: ("auth_error", TransportError),
        95: ("http3", RemoteProtocolError),
        96: ("quic_connect_error", ConnectError),
        97: ("proxy", ProxyError),
        98: ("ssl_clientcert", TLSError),
        99: ("unrecoverable_poll", TransportError),
        100: ("too_large", ResponseTooLarge),
        101: ("ech_required", TransportError),
    }
)
"""libcurl's codes (curl/curl.h): the name, and the class where nothing else is known. Obsolete numbers keep a place:
an older libcurl may still use them."""

CLOCKS: Final[Mapping[str, type[TimeoutException]]] = MappingProxyType(
    {
        "connect": ConnectTimeout,
        "read": ReadTimeout,
        "write": WriteTimeout,
        "pool": PoolTimeout,
        "total": TotalTimeout,
    }
)
"""The class for the clock that ran out."""

_TIMEDOUT: Final = 28
_UNSUPPORTED_PROTOCOL: Final = 1
_RECV_ERROR: Final = 56
_OUT_OF_MEMORY: Final = 27
_FILESIZE_EXCEEDED: Final = 63


def curl_code_name(curl_code: int) -> str:
    """The code of an error for libcurl's number: "operation_timedout" for 28, "curl_999" for one that is not known."""
    entry = CURL_ERRORS.get(curl_code)
    return f"curl_{curl_code}" if entry is None else entry[0]


def _as_text(detail: str | bytes) -> str:
    text = detail.decode("utf-8", "replace") if isinstance(detail, bytes) else detail
    return text.strip()


def _curl_class(curl_code: int, text: str, *, proxy_failed: bool, request_sent: bool) -> type[RequestError]:
    cls = CURL_ERRORS.get(curl_code, ("", TransportError))[1]
    # Also libcurl's answer to an HTTP/0.9 reply or an unheard-of version. Its text alone tells a redirect to another
    # scheme: 'Protocol "ftp" is disabled (in redirect)'.
    if curl_code == _UNSUPPORTED_PROTOCOL and request_sent and not text.startswith('Protocol "'):
        return RemoteProtocolError
    if proxy_failed and issubclass(cls, (NetworkError, ProtocolError)):
        return ProxyError
    return cls


def error_from_curl(
    curl_code: int | None,
    detail: str | bytes = "",
    *,
    clock: str | None = None,
    proxy_failed: bool = False,
    request: Request | None = None,
    metrics: Metrics | None = None,
    request_sent: bool = True,
) -> RequestError:
    """The error for a transfer that libcurl, or one of the engine's clocks, ended.

    `detail`: libcurl's text; empty: made from the code. `clock`: the clock that ran out, a key of CLOCKS; None or
    "none" if none did: code 28 is then libcurl's own timeout, a TotalTimeout. `proxy_failed`: it failed before or at
    the proxy. `curl_code` None or negative: libcurl gave none.
    """
    if curl_code is not None and curl_code < 0:
        curl_code = None
    text = _as_text(detail)
    cls: type[RequestError]
    if clock is not None and clock in CLOCKS:
        cls, code = CLOCKS[clock], TimeoutException.default_code
        text = text or f"the {clock} timeout ran out"
    elif curl_code is None:
        cls, code = TransportError, TransportError.default_code
    else:
        cls = _curl_class(curl_code, text, proxy_failed=proxy_failed, request_sent=request_sent)
        code = curl_code_name(curl_code)
    if not text:
        text = code.replace("_", " ") + ("" if curl_code is None else f" (libcurl {curl_code})")
    return cls(text, code=code, curl_code=curl_code, request=request, metrics=metrics, request_sent=request_sent)


_OWN_OUTCOMES: Final[Mapping[str, tuple[type[RequestError], str | None, int | None, str]]] = MappingProxyType(
    {
        "cancelled": (Cancelled, None, None, "the request was cancelled"),
        "worker_died": (WorkerDied, None, None, "the worker that drove the request died"),
        "forked": (WorkerDied, None, None, "the request belongs to the parent of this forked process"),
        "too_large": (ResponseTooLarge, None, _FILESIZE_EXCEEDED, "the response is larger than max_response_bytes"),
        "lost": (ReadError, "recv_error", _RECV_ERROR, "the connection was lost before a response came"),
        "body_short": (LocalProtocolError, None, None, "the request body ended short of its Content-Length"),
        "no_memory": (TransportError, "out_of_memory", _OUT_OF_MEMORY, "out of memory"),
    }
)
"""The engine's outcomes that are not libcurl's: class, code and curl code (None: the class's own), text."""


def error_from_outcome(
    outcome: str,
    *,
    curl_code: int | None = None,
    detail: str | bytes = "",
    clock: str | None = None,
    proxy_failed: bool = False,
    request: Request | None = None,
    metrics: Metrics | None = None,
    request_sent: bool = True,
) -> Error:
    """The error for an outcome of the engine by its name; arguments as in error_from_curl.

    Raises KeyError for a name that the engine does not have.
    """
    if outcome in ("curl", "timeout"):
        if outcome == "timeout" and (curl_code is None or curl_code < 0):
            curl_code = _TIMEDOUT
        return error_from_curl(
            curl_code,
            detail,
            clock=clock if outcome == "timeout" else None,
            proxy_failed=proxy_failed,
            request=request,
            metrics=metrics,
            request_sent=request_sent,
        )
    if outcome == "pool_closed":
        return PoolClosed(_as_text(detail) or "the pool was closed")
    cls, code, own_curl_code, text = _OWN_OUTCOMES[outcome]
    return cls(
        _as_text(detail) or text,
        code=code,
        curl_code=own_curl_code,
        request=request,
        metrics=metrics,
        request_sent=request_sent,
    )
