"""Messages as values for `match`."""

from __future__ import annotations

import dataclasses
import pickle

import pytest

from katipo.cookies import CookieJar
from katipo.errors import ReadError
from katipo.headers import Headers
from katipo.messages import Chunk, Done, Failed, Informational, Message, Responded, Started
from katipo.metrics import Metrics
from katipo.response import Response
from katipo.url import URL

JAR = CookieJar([b"h\tFALSE\t/\tFALSE\t0\tsid\thunter2"])
STARTED = Started(1, 200, Headers({"set-cookie": "sid=hunter2"}), JAR, "HTTP/2", URL("http://u:hunter2@h/"))
ALL: list[Message] = [
    STARTED,
    Chunk(1, b"hunter2"),
    Done(1, Metrics(), JAR, Headers()),
    Responded(1, Response(200, content=b"hunter2")),
    Failed(1, ReadError("http://u:hunter2@h/")),
    Informational(1, 103, Headers({"set-cookie": "sid=hunter2"})),
]


def describe(message: Message) -> str:
    match message:
        case Started(ref, status):
            return f"started {ref} {status}"
        case Chunk(ref, data):
            return f"chunk {ref} {len(data)}"
        case Done(ref):
            return f"done {ref}"
        case Responded(ref, response):
            return f"responded {ref} {response.status_code}"
        case Failed(ref, error):
            return f"failed {ref} {error.code}"
        case Informational(ref, status):
            return f"informational {ref} {status}"


def test_messages_match_by_position() -> None:
    """The order of the fields is that of the contract."""
    assert [describe(message) for message in ALL] == [
        "started 1 200",
        "chunk 1 7",
        "done 1",
        "responded 1 200",
        "failed 1 recv_error",
        "informational 1 103",
    ]


def test_the_fields_are_the_contracts() -> None:
    """Names and order are what users rely on."""
    assert [[field.name for field in dataclasses.fields(message)] for message in ALL] == [
        ["ref", "status_code", "headers", "cookiejar", "http_version", "url"],
        ["ref", "data"],
        ["ref", "metrics", "cookiejar", "trailers"],
        ["ref", "response"],
        ["ref", "error"],
        ["ref", "status_code", "headers"],
    ]


@pytest.mark.parametrize("message", ALL)
def test_a_message_cannot_be_changed(message: Message) -> None:
    """A message may be read by several consumers."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        message.ref = 2  # type: ignore[misc]
    assert not hasattr(message, "__dict__")


@pytest.mark.parametrize("message", ALL)
def test_no_messages_repr_shows_a_secret_or_a_body(message: Message) -> None:
    """Bodies, cookies and userinfo stay out of logs."""
    assert "hunter2" not in repr(message)


@pytest.mark.parametrize("message", ALL)
def test_a_message_pickles(message: Message) -> None:
    """Messages can be handed to another process."""
    assert describe(pickle.loads(pickle.dumps(message))) == describe(message)
