"""katipo's pool, awaited."""

from types import TracebackType

from typing_extensions import Self

import katipo
from katipo.messages import Chunk

from . import Pause


class Client:
    """One pool with one worker, which is the default."""

    def __init__(self, authority: str | None) -> None:
        self._pool = katipo.Pool()
        self._options: katipo.RequestOptions = {"cacert": authority} if authority else {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._pool.aclose()

    async def get(self, url: str) -> int:
        response = await self._pool.async_get(url, **self._options)
        return len(response.content)

    async def download(self, url: str, pause: Pause | None = None) -> int:
        total = 0
        async for message in self._pool.async_get(url, stream=True, **self._options):
            if isinstance(message, Chunk):
                total += len(message.data)
                if pause is not None:
                    await pause(total)
        return total

    async def upload(self, url: str, piece: bytes, count: int) -> int:
        async with self._pool.async_post(url, stream_body=True, **self._options) as handle:
            for _ in range(count):
                await handle.asend_body(piece)
            handle.finish_body()
            return int((await handle).content)
