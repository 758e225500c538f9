"""The error tree, its codes, and what its members carry."""

from __future__ import annotations

import copy
import pickle

import pytest

from katipo import errors
from katipo.errors import (
    CLOCKS,
    CURL_ERRORS,
    BadOptions,
    Cancelled,
    ConnectError,
    ConnectTimeout,
    Error,
    HTTPStatusError,
    LocalProtocolError,
    Overload,
    PoolClosed,
    ProxyError,
    ReadError,
    ReadTimeout,
    RemoteProtocolError,
    RequestError,
    ResponseTooLarge,
    TLSError,
    TotalTimeout,
    TransportError,
    UnsupportedProtocol,
    WorkerDied,
    curl_code_name,
    error_from_curl,
    error_from_outcome,
)
from katipo.metrics import Metrics
from katipo.request import Request
from katipo.response import Response

ALL: list[type[Error]] = [getattr(errors, name) for name in errors.__all__]
REQUEST_ERRORS = [cls for cls in ALL if issubclass(cls, RequestError)]

CLASSES = {
    "ConnectError": {6, 7, 45, 96},
    "TLSError": {35, 53, 54, 58, 59, 60, 64, 66, 77, 80, 82, 83, 90, 91, 98},
    "ProxyError": {5, 97},
    "WriteError": {55, 65},
    "ReadError": {56},
    "RemoteProtocolError": {8, 16, 18, 52, 92, 95},
    "DecodingError": {61},
    "TooManyRedirects": {47},
    "ResponseTooLarge": {63, 100},
    "UnsupportedProtocol": {1},
    "TotalTimeout": {28},
}


def make(cls: type[Error]) -> Error:
    if issubclass(cls, HTTPStatusError):
        request = Request("GET", "http://example.com/")
        return cls("no", request=request, response=Response(404, request=request))
    return cls("no")


def test_the_tree_drawn_in_the_module_is_the_tree() -> None:
    """Every line of the drawing names classes whose base is the line above it that is less indented."""
    assert errors.__doc__ is not None
    drawing = errors.__doc__.split("\n\n")[1].splitlines()
    parents: list[tuple[int, type[BaseException]]] = [(0, Exception)]
    seen: set[str] = set()
    for line in drawing:
        indent = len(line) - len(line.lstrip())
        names, _, also = line.partition("(also ")
        while parents[-1][0] >= indent:
            parents.pop()
        for name in names.split():
            cls = getattr(errors, name)
            assert cls.__bases__[0] is parents[-1][1], name
            if also:
                assert cls.__bases__[1].__name__ == also.strip(")")
            seen.add(name)
        parents.append((indent, getattr(errors, names.split()[-1])))
    assert seen == set(errors.__all__)


@pytest.mark.parametrize("cls", ALL)
def test_an_error_survives_pickling_and_copying(cls: type[Error]) -> None:
    """Class, message, code and what was given by keyword come back, whatever built-in error is a base."""
    error = make(cls)
    error.code = "changed"
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is cls
        assert (again.message, again.code, str(again), again.args) == ("no", "changed", "no", ("no",))


@pytest.mark.parametrize("cls", REQUEST_ERRORS)
def test_a_request_error_pickles_with_its_request_and_metrics(cls: type[RequestError]) -> None:
    """The keyword arguments of request errors are state, not arguments of the pickled call."""
    request = Request("POST", "http://example.com/x", headers={"a": "b"}, content=b"body")
    error = cls("no", code="x", curl_code=7, request=request, metrics=Metrics(total_time=1.5), request_sent=False)
    again = pickle.loads(pickle.dumps(error))
    assert (again.code, again.curl_code, again.request_sent) == ("x", 7, False)
    assert again.metrics == Metrics(total_time=1.5)
    assert (again.request.method, again.request.url, again.request.content) == ("POST", request.url, b"body")
    assert again.request.headers == request.headers


def test_a_status_error_pickles_with_its_response() -> None:
    """Request and response are required by keyword and come back."""
    request = Request("GET", "http://example.com/")
    error = HTTPStatusError("no", request=request, response=Response(404, text="gone", request=request))
    again = pickle.loads(pickle.dumps(error))
    assert again.response.status_code == 404
    assert again.response.text == "gone"
    assert again.request.url == "http://example.com/"


class Custom(ReadError):
    """A user's own class with another signature."""

    def __init__(self, attempt: int) -> None:
        super().__init__(f"attempt {attempt}", request_sent=False)
        self.attempt = attempt


def test_a_users_subclass_with_another_signature_pickles() -> None:
    """Restoring does not go through __init__."""
    again = pickle.loads(pickle.dumps(Custom(3)))
    assert (type(again), again.attempt, again.message, again.request_sent) == (Custom, 3, "attempt 3", False)


def test_every_class_has_a_code_of_its_own_by_default() -> None:
    """The codes of the contract are the defaults of their classes."""
    assert BadOptions("x").code == "bad_opts"
    assert WorkerDied("x").code == "worker_died"
    assert Overload("x").code == "overload"
    assert Cancelled("x").code == "cancelled"
    assert PoolClosed("x").code == "pool_closed"
    assert errors.AwaitTimeout("x").code == "await_timeout"
    assert errors.MailboxClosed("x").code == "mailbox_closed"
    assert all(cls("x").code == "operation_timedout" for cls in CLOCKS.values())
    assert BadOptions("x", code="not_built_in").code == "not_built_in"


def test_only_errors_that_come_before_a_connection_say_that_nothing_was_sent() -> None:
    """Left out, request_sent is False only where no byte can have left."""
    unsent = {cls.__name__ for cls in REQUEST_ERRORS if not cls("x").request_sent}
    assert unsent == {
        "ConnectTimeout",
        "PoolTimeout",
        "ConnectError",
        "TLSError",
        "ProxyError",
        "Overload",
        "UnsupportedProtocol",
    }


def test_the_builtin_bases_let_plain_python_code_catch_them() -> None:
    """A program that knows nothing of katipo catches TimeoutError and the rest."""
    assert isinstance(ReadTimeout("x"), TimeoutError)
    assert isinstance(TLSError("x"), ConnectionError)
    assert isinstance(BadOptions("x"), ValueError)
    assert isinstance(errors.InvalidURL("x"), ValueError)
    assert isinstance(errors.StreamClosed("x"), RuntimeError)
    assert isinstance(errors.AwaitTimeout("x"), TimeoutError)
    assert not isinstance(errors.AwaitTimeout("x"), RequestError)


@pytest.mark.parametrize(
    "text",
    [
        "no route to http://user:hunter2@example.com/",
        "http://hunter2@h/ and https://a:hunter2@h/",
        "http://u:p@hunter2@h/",
        "https://h/?access_token=hunter2&x=1",
        "https://h/?x=1&X-Amz-Signature=hunter2",
        "https://h/?key=hunter2",
    ],
)
def test_no_message_shows_a_secret_of_a_url(text: str) -> None:
    """Userinfo, and parameters named like a key or token, are hidden in str, repr, args and message."""
    error = error_from_curl(7, text.encode())
    assert "hunter2" not in f"{error}{error!r}{error.args}{error.message}"
    assert "[secure]" in str(error)


def test_a_message_without_secrets_stays_as_it_is() -> None:
    """Redaction does not touch addresses, mail addresses and harmless parameters."""
    text = "mail me@example.com about https://h/a@b?monkey=1&page=2"
    assert str(ReadError(text)) == text


def test_every_curl_code_up_to_101_has_a_name() -> None:
    """The table has no hole, and names are those of curl.h."""
    assert sorted(CURL_ERRORS) == list(range(1, 102))
    names = {7: "couldnt_connect", 28: "operation_timedout", 56: "recv_error", 60: "peer_failed_verification"}
    assert {n: CURL_ERRORS[n][0] for n in names} == names
    assert curl_code_name(101) == "ech_required"
    assert curl_code_name(999) == "curl_999"
    assert len({name for name, _ in CURL_ERRORS.values()}) == 101


@pytest.mark.parametrize("number", [*range(1, 102), 999])
def test_a_curl_code_becomes_the_class_that_the_contract_says(number: int) -> None:
    """Codes that the contract does not list become TransportError."""
    expected = next((name for name, numbers in CLASSES.items() if number in numbers), "TransportError")
    error = error_from_curl(number, "why", request_sent=False)
    assert type(error).__name__ == expected
    assert (error.curl_code, error.code, error.message) == (number, curl_code_name(number), "why")


@pytest.mark.parametrize("clock", list(CLOCKS))
def test_a_timeouts_class_says_which_clock_ran_out(clock: str) -> None:
    """The code is the same for all, also where libcurl gave none or a proxy was being connected to."""
    for number in (28, -1, None):
        error = error_from_curl(number, clock=clock, proxy_failed=True)
        assert type(error) is CLOCKS[clock]
        assert error.code == "operation_timedout"
        assert clock in error.message


def test_libcurls_own_timeout_is_a_total_timeout() -> None:
    """Code 28 without a clock of ours can only be TIMEOUT_MS."""
    assert type(error_from_curl(28, clock="none")) is TotalTimeout


@pytest.mark.parametrize("number", [5, 6, 7, 35, 52, 56, 60, 97])
def test_a_failure_at_the_proxy_is_a_proxy_error(number: int) -> None:
    """Whatever failed on the way to or at the proxy, the code stays libcurl's."""
    error = error_from_curl(number, "no", proxy_failed=True)
    assert type(error) is ProxyError
    assert error.code == curl_code_name(number)


@pytest.mark.parametrize("number", [27, 61, 63])
def test_what_is_not_the_proxys_fault_is_no_proxy_error(number: int) -> None:
    """Out of memory and the like keep their class beside a proxy."""
    assert type(error_from_curl(number, proxy_failed=True)) is type(error_from_curl(number))


def test_an_http_09_reply_is_told_from_an_unsupported_scheme() -> None:
    """libcurl has one code for both; what was sent decides, and after a redirect libcurl's text."""
    assert type(error_from_curl(1, request_sent=True)) is RemoteProtocolError
    assert type(error_from_curl(1, "Received HTTP/0.9 when not allowed")) is RemoteProtocolError
    assert type(error_from_curl(1, 'Protocol "ftp" is disabled (in redirect)')) is UnsupportedProtocol
    assert type(error_from_curl(1, request_sent=False)) is UnsupportedProtocol


def test_a_code_without_a_text_makes_a_message() -> None:
    """A message is never empty."""
    assert str(error_from_curl(7)) == "couldnt connect (libcurl 7)"
    assert str(error_from_curl(None)) == "error"
    assert error_from_curl(-1).curl_code is None


@pytest.mark.parametrize(
    ("outcome", "cls", "code"),
    [
        ("curl", ConnectError, "couldnt_connect"),
        ("timeout", ConnectTimeout, "operation_timedout"),
        ("cancelled", Cancelled, "cancelled"),
        ("worker_died", WorkerDied, "worker_died"),
        ("forked", WorkerDied, "worker_died"),
        ("pool_closed", PoolClosed, "pool_closed"),
        ("too_large", ResponseTooLarge, "filesize_exceeded"),
        ("lost", ReadError, "recv_error"),
        ("body_short", LocalProtocolError, "upload_failed"),
        ("no_memory", TransportError, "out_of_memory"),
    ],
)
def test_every_outcome_of_the_engine_has_an_error(outcome: str, cls: type[Error], code: str) -> None:
    """Each outcome but pending and ok gives one class and code, and a message also without detail."""
    curl_code = 7 if outcome == "curl" else -1
    error = error_from_outcome(outcome, curl_code=curl_code, clock="connect", request_sent=False)
    assert (type(error), error.code) == (cls, code)
    assert error.message
    assert error_from_outcome(outcome, curl_code=curl_code, detail=b" why\n").message == "why"
    if isinstance(error, RequestError):
        assert error.request_sent is False


def test_an_outcome_that_the_engine_does_not_have_is_a_mistake() -> None:
    """An unknown name is not turned into some error."""
    with pytest.raises(KeyError):
        error_from_outcome("ok")
