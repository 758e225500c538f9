"""What the package shows: `__all__`, the contract's names, and nothing else."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import katipo

ROOT = Path(__file__).parents[1]

METHODS = {"request", "get", "post", "put", "patch", "delete", "head", "options"}
POOL = METHODS | {f"async_{name}" for name in METHODS} | {"check_options", "statistics", "close", "aclose"}
HANDLE = {"ref", "result", "done", "cancel", "send_body", "asend_body", "finish_body", "update_flow"}
MAILBOX = {"receive", "areceive", "close"}
SETTINGS = {"base_url", "headers", "params", "cookies", "auth", "timeout", "event_hooks", "follow_redirects"}
CLIENT = (
    METHODS
    | SETTINGS
    | {"stream", "exchange", "download", "download_many"}
    | {"is_closed", "max_redirects", "trust_env"}
)
EXCHANGE = {"send", "finish", "response"}
ITERATIONS = {"iter_raw", "iter_bytes", "iter_text", "iter_lines", "read", "close"}
RESPONSE = {
    *("status_code", "reason_phrase", "http_version", "headers", "content", "text", "json", "encoding", "cookies"),
    *("cookiejar", "url", "request", "history", "trailers", "elapsed", "metrics", "raise_for_status"),
    *("is_success", "is_redirect", "is_client_error", "is_server_error", "is_error", "is_informational"),
    *("has_redirect_location", "charset_encoding", "read", "aread"),
}
DOCUMENTED = (
    *(
        katipo.Pool,
        katipo.Handle,
        katipo.Mailbox,
        katipo.Client,
        katipo.AsyncClient,
        katipo.Exchange,
        katipo.AsyncExchange,
    ),
    *(katipo.Response, katipo.StreamingResponse, katipo.AsyncStreamingResponse),
)
STREAMING = RESPONSE | {"is_closed", "is_stream_consumed"}


def public(thing: object) -> set[str]:
    return {name for name in dir(thing) if not name.startswith("_")}


def test_all_is_sorted_and_there() -> None:
    """No name twice, none missing."""
    assert len(set(katipo.__all__)) == len(katipo.__all__)
    for name in katipo.__all__:
        assert hasattr(katipo, name), name


def test_the_package_shows_nothing_else() -> None:
    """But for its modules, which importing them puts there."""
    shown = public(katipo) - set(katipo.__all__)
    assert all(f"katipo.{name}" in sys.modules for name in shown), shown


def test_every_error_is_exported() -> None:
    """At top level, as the contract has it."""
    from katipo import errors

    classes = {
        name for name, value in vars(errors).items() if isinstance(value, type) and issubclass(value, errors.Error)
    }
    assert {name for name in classes if not name.startswith("_")} <= set(katipo.__all__)


def test_every_message_is_exported() -> None:
    """At top level and in katipo.messages."""
    for name in ("Started", "Chunk", "Done", "Responded", "Failed", "Informational", "Message"):
        assert getattr(katipo, name) is getattr(katipo.messages, name)
        assert name in katipo.__all__


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (katipo.Pool, POOL),
        (katipo.Handle, HANDLE),
        (katipo.Mailbox, MAILBOX),
        (katipo.Client, CLIENT | {"close"}),
        (katipo.AsyncClient, CLIENT | {"aclose"}),
        (katipo.Exchange, EXCHANGE),
        (katipo.AsyncExchange, EXCHANGE),
        (katipo.Response, RESPONSE),
        (katipo.StreamingResponse, STREAMING | ITERATIONS),
        (katipo.AsyncStreamingResponse, STREAMING | {f"a{name}" for name in ITERATIONS}),
    ],
)
def test_classes_show_the_contract_and_nothing_else(shown: type, expected: set[str]) -> None:
    """What is not promised cannot be relied on."""
    assert public(shown) == expected


def test_public_things_are_documented() -> None:
    """Classes, functions, and the methods of what everything goes through."""
    for name in katipo.__all__:
        thing = getattr(katipo, name)
        if isinstance(thing, type) or inspect.isfunction(thing):
            assert thing.__doc__, name
    for cls in DOCUMENTED:
        for name in public(cls) - {"ref", "status_code"}:
            assert getattr(cls, name).__doc__, f"{cls.__name__}.{name}"


def test_both_clients_take_the_same_arguments() -> None:
    """Of themselves and of their calls, but for what a body may be."""
    assert inspect.signature(katipo.Client) == inspect.signature(katipo.AsyncClient)
    assert set(katipo.ClientOptions.__annotations__) == set(katipo.AsyncClientOptions.__annotations__)
    assert set(katipo.ExchangeOptions.__annotations__) == set(katipo.AsyncExchangeOptions.__annotations__)
    for name in sorted(public(katipo.Client) & public(katipo.AsyncClient)):
        mine, other = getattr(katipo.Client, name), getattr(katipo.AsyncClient, name)
        if inspect.isfunction(mine):
            assert list(inspect.signature(mine).parameters) == list(inspect.signature(other).parameters), name


def test_the_documentation_names_every_argument_of_a_client() -> None:
    """In the tables of docs/clients.md."""
    text = (ROOT / "docs" / "clients.md").read_text(encoding="utf-8")
    told = set(re.findall(r"`(\w+)`", text))
    arguments = set(inspect.signature(katipo.Client).parameters) | set(katipo.ClientOptions.__annotations__)
    assert not arguments - told


def test_the_version_is_the_build_s() -> None:
    """Written twice, compared here."""
    declared = re.search(r"version: '([^']+)'", (ROOT / "meson.build").read_text())
    assert declared is not None
    assert katipo.__version__ == declared[1]


def test_the_package_is_typed() -> None:
    """PEP 561."""
    assert (Path(katipo.__file__).parent / "py.typed").exists()


def test_importing_is_cheap() -> None:
    """Nothing that most programs do not need is imported: the list is what was found to cost most."""
    program = "import sys, katipo; print(*sys.modules)"
    finished = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    dear = {"asyncio", "trio", "ssl", "logging", "http.client", "email", "pycurl", "certifi", "json.tool", "argparse"}
    assert not dear & set(finished.stdout.split())
