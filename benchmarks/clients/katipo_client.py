"""katipo's AsyncClient."""

from collections.abc import AsyncGenerator
from types import TracebackType

from typing_extensions import Self

import katipo

from . import Pause


class Client:
    """One client without its limit on connections."""

    def __init__(self, authority: str | None) -> None:
        self._client = katipo.AsyncClient(
            verify=authority or True, limits=katipo.Limits(max_connections=None), timeout=60, trust_env=False
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._client.aclose()

    async def get(self, url: str) -> int:
        return len((await self._client.get(url)).content)

    async def download(self, url: str, pause: Pause | None = None) -> int:
        total = 0
        async with self._client.stream("GET", url) as response:
            async for chunk in response.aiter_raw():
                total += len(chunk)
                if pause is not None:
                    await pause(total)
        return total

    async def upload(self, url: str, piece: bytes, count: int) -> int:
        async def body() -> AsyncGenerator[bytes, None]:
            for _ in range(count):
                yield piece

        return int((await self._client.post(url, content=body())).content)
