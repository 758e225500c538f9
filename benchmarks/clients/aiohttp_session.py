"""aiohttp (HTTP/1.1 only)."""

import ssl
from collections.abc import AsyncGenerator
from types import TracebackType

import aiohttp
from typing_extensions import Self

from . import Pause


class Client:
    """One session without its limit on connections."""

    def __init__(self, authority: str | None) -> None:
        self._context = ssl.create_default_context(cafile=authority) if authority else True

    async def __aenter__(self) -> Self:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0, ssl=self._context))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._session.close()

    async def get(self, url: str) -> int:
        async with self._session.get(url) as response:
            return len(await response.read())

    async def download(self, url: str, pause: Pause | None = None) -> int:
        total = 0
        async with self._session.get(url) as response:
            async for chunk in response.content.iter_any():
                total += len(chunk)
                if pause is not None:
                    await pause(total)
        return total

    async def upload(self, url: str, piece: bytes, count: int) -> int:
        async def body() -> AsyncGenerator[bytes, None]:
            for _ in range(count):
                yield piece

        async with self._session.post(url, data=body()) as response:
            return int(await response.read())
