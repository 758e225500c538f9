"""What the unit tests of pool, handle, mailbox and waiting stand on: one small server, and a pool for each test."""

from collections.abc import Iterator

import pytest

import katipo
from tests.unit.tiny_server import TinyServer


@pytest.fixture(scope="session")
def tiny() -> Iterator[TinyServer]:
    """A TinyServer."""
    server = TinyServer()
    yield server
    server.close()


@pytest.fixture
def pool() -> Iterator[katipo.Pool]:
    """A pool, closed at the end of the test."""
    with katipo.Pool() as made:
        yield made
