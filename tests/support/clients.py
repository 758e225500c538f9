"""Clients of either face behind one blocking set of names, so that a test is written once and runs on both.

The asynchronous client runs on an asyncio loop of the fixture's own, which stands still between the calls. Tests of what
only one face has (tasks, cancelling, threads that block) use `katipo.Client` and `katipo.AsyncClient` themselves.
"""

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Generator, Iterator
from typing import Any, Literal, TypeAlias, TypeVar

import katipo

_T = TypeVar("_T")

FaceName: TypeAlias = Literal["sync", "async"]
FACES: tuple[FaceName, ...] = ("sync", "async")


class Streamed:
    """A streamed response of either face."""

    def __init__(self, wait: Callable[[Coroutine[Any, Any, Any]], Any], response: katipo.Response) -> None:
        self._wait = wait
        self.response = response

    @property
    def status_code(self) -> int:
        """The response's."""
        return self.response.status_code

    @property
    def headers(self) -> katipo.Headers:
        """The response's."""
        return self.response.headers

    def read(self) -> bytes:
        """`read` or `aread`."""
        if isinstance(self.response, katipo.AsyncStreamingResponse):
            content: bytes = self._wait(self.response.aread())
            return content
        assert isinstance(self.response, katipo.StreamingResponse)
        return self.response.read()

    def pieces(self, how: Literal["raw", "bytes", "text", "lines"] = "bytes", *sizes: int) -> Iterator[Any]:
        """`iter_<how>` or `aiter_<how>`."""
        if isinstance(self.response, katipo.AsyncStreamingResponse):
            items = getattr(self.response, f"aiter_{how}")(*sizes)
            with contextlib.suppress(StopAsyncIteration):
                while True:
                    yield self._wait(anext(items))
        else:
            yield from getattr(self.response, f"iter_{how}")(*sizes)

    def close(self) -> None:
        """`close` or `aclose`."""
        if isinstance(self.response, katipo.AsyncStreamingResponse):
            self._wait(self.response.aclose())
        else:
            assert isinstance(self.response, katipo.StreamingResponse)
            self.response.close()


class AnyClient:
    """A client of either face. `client` is the client itself, with all that needs no waiting."""

    def __init__(self, loop: asyncio.AbstractEventLoop | None, **options: Any) -> None:
        self._loop = loop
        self.client: katipo.Client | katipo.AsyncClient
        self.client = katipo.Client(**options) if loop is None else katipo.AsyncClient(**options)

    def wait(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run a coroutine in the asynchronous client's loop."""
        assert self._loop is not None
        return self._loop.run_until_complete(coroutine)

    @property
    def face(self) -> FaceName:
        """Which one it is."""
        return "sync" if self._loop is None else "async"

    @property
    def headers(self) -> katipo.Headers:
        """The client's."""
        return self.client.headers

    @property
    def cookies(self) -> katipo.Cookies:
        """The client's."""
        return self.client.cookies

    def request(self, method: str, url: str | katipo.URL, **options: Any) -> katipo.Response:
        """Send a request and wait for its response."""
        if isinstance(self.client, katipo.AsyncClient):
            return self.wait(self.client.request(method, url, **options))
        return self.client.request(method, url, **options)

    def get(self, url: str | katipo.URL, **options: Any) -> katipo.Response:
        """The client's own `get`."""
        return self._call("get", url, **options)

    def head(self, url: str | katipo.URL, **options: Any) -> katipo.Response:
        """The client's own `head`."""
        return self._call("head", url, **options)

    def options(self, url: str | katipo.URL, **options: Any) -> katipo.Response:
        """The client's own `options`."""
        return self._call("options", url, **options)

    def post(self, url: str | katipo.URL, **options: Any) -> katipo.Response:
        """The client's own `post`."""
        return self._call("post", url, **options)

    def put(self, url: str | katipo.URL, **options: Any) -> katipo.Response:
        """The client's own `put`."""
        return self._call("put", url, **options)

    def patch(self, url: str | katipo.URL, **options: Any) -> katipo.Response:
        """The client's own `patch`."""
        return self._call("patch", url, **options)

    def delete(self, url: str | katipo.URL, **options: Any) -> katipo.Response:
        """The client's own `delete`."""
        return self._call("delete", url, **options)

    def _call(self, name: str, url: str | katipo.URL, **options: Any) -> katipo.Response:
        result = getattr(self.client, name)(url, **options)
        if self._loop is not None:
            result = self.wait(result)
        assert isinstance(result, katipo.Response)
        return result

    @contextlib.contextmanager
    def stream(self, method: str, url: str | katipo.URL, **options: Any) -> Generator[Streamed, None, None]:
        """The client's own `stream`."""
        if isinstance(self.client, katipo.Client):
            with self.client.stream(method, url, **options) as blocking:
                yield Streamed(_no_wait, blocking)
            return
        manager = self.client.stream(method, url, **options)
        response = self.wait(manager.__aenter__())
        try:
            yield Streamed(self.wait, response)
        except BaseException as error:
            if not self.wait(manager.__aexit__(type(error), error, error.__traceback__)):
                raise
        else:
            self.wait(manager.__aexit__(None, None, None))

    def hook(self, function: Callable[..., object]) -> Callable[..., Any]:
        """An event hook of the face's own kind: for an asynchronous client, an async function that calls `function`."""
        if self._loop is None:
            return function

        async def hook(*args: Any) -> None:
            await asyncio.sleep(0)
            function(*args)

        return hook

    def close(self) -> None:
        """`close` or `aclose`. Idempotent."""
        if isinstance(self.client, katipo.AsyncClient):
            self.wait(self.client.aclose())
        else:
            self.client.close()


def _no_wait(coroutine: Coroutine[Any, Any, Any]) -> Any:
    raise AssertionError("a blocking client has no coroutines")


class ClientMaker:
    """Makes clients of one face. A context manager, which closes them. `trust_env` is False unless it is given."""

    def __init__(self, face: FaceName) -> None:
        self.face = face
        self._loop = asyncio.new_event_loop() if face == "async" else None
        self._held = contextlib.ExitStack()

    def __call__(self, **options: Any) -> AnyClient:
        """A client with these options."""
        client = AnyClient(self._loop, **{"trust_env": False, **options})
        self._held.callback(client.close)
        return client

    def __enter__(self) -> "ClientMaker":
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self._held.close()
        finally:
            if self._loop is not None:
                self._loop.run_until_complete(self._loop.shutdown_asyncgens())
                self._loop.close()
