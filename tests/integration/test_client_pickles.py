"""What a client gives out, on its way to another process."""

from __future__ import annotations

import copy
import pickle
from typing import TYPE_CHECKING, Any

import pytest

import katipo

if TYPE_CHECKING:
    from tests.support.clients import ClientMaker
    from tests.support.origin import Origin


@pytest.mark.parametrize("stream", [True, False], ids=["streamed", "hooked"])
def test_a_streamed_response_pickles_and_copies(clients: ClientMaker, origin: Origin, stream: bool) -> None:
    """With what is known by then, and so do its errors. The rest of the body stays with the original."""
    client = clients(event_hooks={"informational": [print]})
    url = origin.strict_http + "/status/404"
    if not stream:
        whole: Any = client.get(url)
        for twin in (pickle.loads(pickle.dumps(whole)), copy.copy(whole)):
            assert (twin.content, twin.url, twin.is_closed) == (whole.content, url, True)
        return
    with client.stream("GET", url) as streamed:
        with pytest.raises(katipo.HTTPStatusError) as caught:
            streamed.response.raise_for_status()
        twin = pickle.loads(pickle.dumps(caught.value)).response
        assert twin.status_code == 404
        assert twin.headers == streamed.headers
        assert twin.is_closed
        with pytest.raises(katipo.ResponseNotRead):
            _ = twin.content
        assert streamed.read() is not None
