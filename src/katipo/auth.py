"""Authentication: who a request is from, as a value that a client or a request is given.

A scheme works in one of two ways, or in both:
- `auth_flow`, a generator, changes the headers of a request, yields it to be sent, and may yield again when it has seen
  the response. Basic, Bearer, AWS's signatures and netrc are such flows: the header is there with the first request.
- `pool_options` says what libcurl is to do. Digest, NTLM and Negotiate are libcurl's: it answers the challenges itself,
  sends an empty request first where a body would otherwise go twice, and keeps connections that are authenticated apart.

Neither does I/O of its own, except that NetRCAuth reads its file when it is made, and that callables given for a token
or for keys may do what they like, in the thread that sends.

Values are immutable, compare and hash by what they hold, and pickle. Their reprs show no secret.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING, ClassVar, Final, TypeAlias, cast, overload

from ._compat import override
from ._frozen import Frozen
from ._pattern import pattern
from .errors import HIDDEN, BadOptions
from .request import Request

if TYPE_CHECKING:
    import os

    from .response import Response
    from .url import URL

__all__ = [
    "AWSSigV4Auth",
    "Auth",
    "AuthTypes",
    "BasicAuth",
    "BearerAuth",
    "DigestAuth",
    "FunctionAuth",
    "NTLMAuth",
    "NegotiateAuth",
    "NetRCAuth",
    "as_auth",
]

AuthFlow: TypeAlias = "Generator[Request, Response, None]"
Text: TypeAlias = str | bytes
Credentials: TypeAlias = tuple[str, str] | tuple[str, str, str | None]
"""AWS's access key, secret key and, for temporary ones, session token."""

_CONTROL: Final = pattern(rb"[\x00-\x1f\x7f]")
_SCOPE_NAME: Final = pattern(r"[A-Za-z0-9._-]+")  # what stands between slashes in a credential scope
_ACCESS_KEY: Final = pattern(r"[!-+\-.0-~]+")  # visible ASCII but "," and "/", which end it in the header


class Auth:
    """A way to authenticate. Subclass it and override `auth_flow`, `pool_options`, or both."""

    requires_response_body: ClassVar[bool] = False
    """Whether the body of a response is read before the flow gets it back."""

    def auth_flow(self, request: Request) -> AuthFlow:
        """Yield `request`, changed as needed, to send it; get its response back; return to be done.

        Yielding again sends again, if the body can be.
        """
        yield request

    def pool_options(self, url: URL) -> Mapping[str, object]:
        """The pool's request options that make libcurl authenticate towards `url`: http_auth, username, password."""
        return {}


class _Value(Auth, Frozen):
    """What the schemes below have in common: a repr that shows no secret."""

    __slots__ = ()
    _shown: ClassVar[tuple[str, ...]] = ()
    """The parts whose value is no secret."""

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self._shown)
        return f"{type(self).__name__}({', '.join([*shown, HIDDEN])})"


def _encoded(value: object, what: str) -> bytes:
    """A user or password as bytes, text as UTF-8. Refused: control characters (RFC 7617 2), which no scheme can carry."""
    if isinstance(value, str):
        try:
            data = value.encode("utf-8")
        except UnicodeEncodeError:
            raise BadOptions(f"auth: {what} has no UTF-8 form") from None
    elif isinstance(value, bytes):
        data = value
    else:
        raise BadOptions(f"auth: {what} must be str or bytes, not {type(value).__name__}")
    if _CONTROL.search(data):
        raise BadOptions(f"auth: {what} must not contain control characters")
    return data


class BasicAuth(_Value):
    """User and password in every request (RFC 7617), text as UTF-8.

    Raises BadOptions for a colon in `username`, which would end it, and for control characters.
    """

    __slots__ = ("_header", "username")
    _shown = ("username",)
    username: Text
    _header: str

    def __init__(self, username: Text, password: Text) -> None:
        user, secret = _encoded(username, "username"), _encoded(password, "password")
        if b":" in user:
            raise BadOptions("auth: username must not contain a colon")
        from base64 import b64encode

        self._set("Basic " + b64encode(user + b":" + secret).decode("ascii"), username)

    @override
    def auth_flow(self, request: Request) -> AuthFlow:
        request.headers["Authorization"] = self._header
        yield request


class BearerAuth(_Value):
    """A token in every request (RFC 6750).

    `token`: the token, or a callable that returns the one to use, called for each request in the thread that sends it.
    Raises BadOptions for a token that is empty or has control characters; one that is returned is checked when it is.
    """

    __slots__ = ("_token",)
    _token: str | Callable[[], str]

    def __init__(self, token: str | Callable[[], str]) -> None:
        if not callable(token):
            _check_token(token)
        self._set(token)

    @override
    def auth_flow(self, request: Request) -> AuthFlow:
        token = self._token
        if callable(token):
            token = token()
            _check_token(token)
        request.headers["Authorization"] = f"Bearer {token}"
        yield request


def _check_token(token: object, what: str = "token") -> None:
    if not isinstance(token, str):
        raise BadOptions(f"auth: {what} must be str, not {type(token).__name__}")
    if not _encoded(token, what):
        raise BadOptions(f"auth: {what} must not be empty")


class _LibcurlAuth(_Value):
    """A scheme that libcurl speaks: its name, and the user and password that the pool is told."""

    __slots__ = ("_password", "username")
    _shown = ("username",)
    _scheme: ClassVar[str]
    username: Text
    _password: Text

    def __init__(self, username: Text, password: Text) -> None:
        _encoded(username, "username")
        _encoded(password, "password")
        self._set(password, username)

    @override
    def pool_options(self, url: URL) -> Mapping[str, object]:
        return {"http_auth": self._scheme, "username": self.username, "password": self._password}


class DigestAuth(_LibcurlAuth):
    """User and password, which are never sent themselves (RFC 7616): MD5, SHA-256 and their -sess forms, with and
    without qop.

    libcurl's: the first request goes out empty, and the body follows once the challenge is known, so it is sent once.
    """

    _scheme = "digest"


class NTLMAuth(_LibcurlAuth):
    r"""NTLM, for servers that have nothing better; of a connection, not of a request.

    `username`: with its domain, where there is one, as "DOMAIN\\user". libcurl's, where it was built with it: pycurl's
    wheels were not, and the request is then refused with BadOptions, code "not_built_in".
    Raises BadOptions for text beyond ISO-8859-1: libcurl makes UTF-16 of it byte by byte.
    """

    _scheme = "ntlm"

    def __init__(self, username: Text, password: Text) -> None:
        super().__init__(username, password)
        _narrow(username, "username")
        _narrow(password, "password")

    @override
    def pool_options(self, url: URL) -> Mapping[str, object]:
        user, password = _narrow(self.username, "username"), _narrow(self._password, "password")
        return {"http_auth": self._scheme, "username": user, "password": password}


def _narrow(text: Text, what: str) -> bytes:
    """Text as the bytes of which libcurl's NTLM makes the right UTF-16 (unicodecopy in its lib/vauth/ntlm.c)."""
    try:
        return text.encode("iso-8859-1") if isinstance(text, str) else text
    except UnicodeEncodeError:
        raise BadOptions(f"auth: {what} has a character that libcurl's NTLM cannot send") from None


class NegotiateAuth(_LibcurlAuth):
    """Kerberos through SPNEGO (RFC 4559), with the ticket that is there: `kinit`, or a keytab.

    The ticket comes from the cache that Kerberos finds (KRB5CCNAME), whatever `username` says. Connections are kept
    apart by `username` and `password`: a program that uses the caches of several users names them here.
    """

    _scheme = "negotiate"

    def __init__(self, username: Text = "", password: Text = "") -> None:
        super().__init__(username, password)


class AWSSigV4Auth(_Value):
    """AWS Signature Version 4: each request is signed, with its headers, its URL as it is sent, and its body.

    `access_key`, `secret_key`, and for temporary credentials `session_token`; or, in their place, `credentials`: a
    callable that returns them as (access_key, secret_key, session_token), called for each request.

    The hash of a body that is streamed is not known when it is signed. S3 takes such a body unsigned over https; else
    its hash has to be given as the header X-Amz-Content-SHA256, or BadOptions is raised. That header also takes
    "UNSIGNED-PAYLOAD" from callers whose service allows it.
    """

    __slots__ = ("_access_key", "_credentials", "_secret_key", "_session_token", "region", "service")
    _shown = ("region", "service")
    region: str
    service: str
    _access_key: str | None
    _secret_key: str | None
    _session_token: str | None
    _credentials: Callable[[], Credentials] | None

    @overload
    def __init__(
        self, access_key: str, secret_key: str, *, region: str, service: str, session_token: str | None = None
    ) -> None: ...
    @overload
    def __init__(self, *, region: str, service: str, credentials: Callable[[], Credentials]) -> None: ...
    def __init__(
        self,
        access_key: str | None = None,
        secret_key: str | None = None,
        *,
        region: str,
        service: str,
        session_token: str | None = None,
        credentials: Callable[[], Credentials] | None = None,
    ) -> None:
        for name, value in (("region", region), ("service", service)):
            if not isinstance(value, str) or _SCOPE_NAME.fullmatch(value) is None:  # pyright: ignore[reportUnnecessaryIsInstance]
                raise BadOptions(f'auth: {name} must be a name such as "us-east-1" or "s3"')
        if credentials is None:
            _check_credentials((access_key, secret_key, session_token))
        elif not callable(credentials):  # pyright: ignore[reportUnnecessaryComparison]
            raise BadOptions(f"auth: credentials must be callable, not {type(credentials).__name__}")
        elif (access_key, secret_key, session_token) != (None, None, None):
            raise BadOptions("auth: credentials excludes access_key, secret_key and session_token")
        self._set(access_key, credentials, secret_key, session_token, region, service)

    def _current(self) -> tuple[str, str, str | None]:
        if self._credentials is None:
            return _check_credentials((self._access_key, self._secret_key, self._session_token))
        return _check_credentials(self._credentials())

    @override
    def auth_flow(self, request: Request) -> AuthFlow:
        from . import _sigv4

        access_key, secret_key, session_token = self._current()
        scope = _sigv4.Scope(time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(_clock())), self.region, self.service)
        headers = request.headers
        headers["X-Amz-Date"] = scope.timestamp
        if session_token is not None:
            headers["X-Amz-Security-Token"] = session_token
        hashed = self._payload_hash(request)
        if self.service in _sigv4.S3_SERVICES or "X-Amz-Content-SHA256" in headers:
            headers["X-Amz-Content-SHA256"] = hashed
        pairs = headers.raw
        if "Host" not in headers:
            pairs.append((b"host", request.url.netloc))
        headers["Authorization"] = _sigv4.authorization(
            access_key,
            secret_key,
            scope,
            method=request.method,
            target=request.url.raw_path,
            headers=pairs,
            hashed=hashed,
        )
        yield request

    def _payload_hash(self, request: Request) -> str:
        from . import _sigv4

        given = request.headers.get("X-Amz-Content-SHA256")
        if given == _sigv4.UNSIGNED_PAYLOAD:
            return given
        if not request.is_streamed:
            # A hash that was given may be that of another request, where headers were copied.
            return _sigv4.payload_hash(request.content or b"")
        if given is not None:
            return given
        if self.service in _sigv4.S3_SERVICES and request.url.scheme == "https":
            return _sigv4.UNSIGNED_PAYLOAD
        raise BadOptions(
            "auth: a streamed body can be signed only with its hash in the header X-Amz-Content-SHA256,"
            " or unsigned for s3 over https"
        )


def _clock() -> float:
    """Seconds since the epoch, for signatures. A name of its own, so that tests can set it."""
    return time.time()


def _check_credentials(given: object) -> tuple[str, str, str | None]:
    parts = cast("tuple[object, ...]", given)
    if not isinstance(given, tuple) or len(parts) not in (2, 3):
        raise BadOptions("auth: credentials must return a tuple (access_key, secret_key, session_token)")
    access_key, secret_key, session_token = (*parts, None)[:3]
    if not isinstance(access_key, str) or _ACCESS_KEY.fullmatch(access_key) is None:
        raise BadOptions("auth: access_key must be a str of visible ASCII characters without commas and slashes")
    _check_token(secret_key, "secret_key")
    if session_token is not None:
        _check_token(session_token, "session_token")
    return access_key, cast("str", secret_key), cast("str | None", session_token)


class NetRCAuth(_Value):
    """User and password from a netrc file, by the request's host, sent as BasicAuth does. A host that has no entry with
    a password, nor the file a `default` one, gets nothing.

    `file`: its path; None: the environment's NETRC, else ~/.netrc, which must belong to the user alone, and which need
    not be there. Read once, here; a pickle holds the path and reads it again.
    Raises BadOptions for a file that cannot be read or is malformed.
    """

    __slots__ = ("_entries", "file")
    _shown = ("file",)
    file: str | None
    _entries: tuple[tuple[str, BasicAuth], ...]

    def __init__(self, file: str | os.PathLike[str] | None = None) -> None:
        import os

        try:
            chosen = os.environ.get("NETRC") or None if file is None else os.fspath(file)
        except TypeError:
            raise BadOptions(f"auth: file must be a path, not {type(file).__name__}") from None
        self._set(tuple(sorted(_read_netrc(chosen), key=lambda entry: entry[0])), chosen)

    @override
    def auth_flow(self, request: Request) -> AuthFlow:
        entries = dict(self._entries)
        url = request.url
        for name in (url.raw_host.decode("ascii"), url.host, _DEFAULT):
            if name in entries:
                yield from entries[name].auth_flow(request)
                return
        yield request

    @override
    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.file,)


_DEFAULT: Final = "default"
"""The netrc module's name for the entry of all other hosts."""


def _read_netrc(file: str | None) -> Generator[tuple[str, BasicAuth], None, None]:
    """Hosts in lower case with their credentials. Messages say where, and nothing of what is in the file."""
    import netrc

    name = "~/.netrc" if file is None else file
    try:
        parsed = netrc.netrc(file)
    except FileNotFoundError:
        if file is None:
            return
        raise BadOptions(f"auth: there is no netrc file {name!r}") from None
    except OSError as error:
        raise BadOptions(f"auth: the netrc file {name!r} cannot be read: {error.strerror}") from None
    except netrc.NetrcParseError as error:
        # Its own text quotes what it met, unless it is about who may read the file.
        reason = error.msg if error.msg.startswith("~/.netrc ") else f"malformed near line {error.lineno}"
        raise BadOptions(f"auth: the netrc file {name!r} is refused: {reason}") from None
    except UnicodeDecodeError:
        raise BadOptions(f"auth: the netrc file {name!r} is refused: it is not text") from None
    for host, (login, _, password) in parsed.hosts.items():
        if not password:
            continue
        try:
            yield host.lower(), BasicAuth(login or "", password)
        except BadOptions as error:
            raise BadOptions(
                f"auth: the netrc file {name!r} is refused: {error.message.removeprefix('auth: ')}"
            ) from None


class FunctionAuth(_Value):
    """A function that is given each request and returns the one to send: the same, changed, or another."""

    __slots__ = ("_function",)
    _function: Callable[[Request], Request]

    def __init__(self, function: Callable[[Request], Request]) -> None:
        self._set(function)

    @override
    def auth_flow(self, request: Request) -> AuthFlow:
        changed = self._function(request)
        if not isinstance(changed, Request):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise BadOptions(f"auth: the function must return a Request, not {type(changed).__name__}")
        yield changed


AuthTypes: TypeAlias = "Auth | tuple[Text, Text] | Callable[[Request], Request]"
"""What `auth=` takes beside None."""


def as_auth(value: object) -> Auth | None:
    """The Auth that is meant: None for None, BasicAuth for (user, password), FunctionAuth for a callable.

    Raises BadOptions for anything else; the message shows nothing of it.
    """
    if value is None or isinstance(value, Auth):
        return value
    if isinstance(value, tuple):
        pair = cast("tuple[Text, ...]", value)
        if len(pair) != 2:
            raise BadOptions("auth: a tuple must be (user, password)")
        return BasicAuth(*pair)
    if callable(value) and not isinstance(value, type):
        return FunctionAuth(cast("Callable[[Request], Request]", value))
    raise BadOptions(
        f"auth: must be an Auth, a tuple (user, password), or a function of a Request, not {type(value).__name__}"
    )
