"""What an upload makes of exceptions, where no server can be made to hit the moment. The rest is tested against servers."""

import asyncio
from typing import Any, cast

import pytest

import katipo
from katipo._content import StreamBody
from katipo._face import LOOP
from katipo._upload import Upload
from katipo.handle import Handle


class EndedHandle:
    """A request that has been cancelled."""

    def done(self) -> bool:
        return True

    def cancel(self) -> None: ...


def ended() -> Upload:
    """An upload in an event loop, of which nothing more will be taken."""
    upload = Upload(LOOP, StreamBody(lambda: iter([b"piece"])))
    upload._handle = cast("Handle", EndedHandle())
    return upload


@pytest.mark.parametrize("stopping", [False, True])
def test_the_end_of_its_request_is_no_failure_of_an_upload(stopping: bool) -> None:
    """The pump may hear of the request's cancel before it is cancelled itself."""
    upload = ended()
    upload._stopping = stopping
    upload._pump_failed(katipo.Cancelled("the request was cancelled"))
    assert upload.error is None
    asyncio.run(cast("Any", upload.stop()))


def test_what_an_iterable_raises_when_it_is_stopped_is_heard_of() -> None:
    """It may be all that tells of what was lost."""
    upload = ended()
    upload._stopping = True
    upload._pump_failed(KeyError("lost"))
    with pytest.raises(KeyError, match="lost"):
        asyncio.run(cast("Any", upload.stop()))
