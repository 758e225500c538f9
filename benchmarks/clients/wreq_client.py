"""wreq, a client in Rust."""

# pyright: reportUnknownMemberType=false
# Its annotations name types that pyright cannot resolve.

import pathlib
from collections.abc import AsyncGenerator
from types import TracebackType

import wreq
from typing_extensions import Self

from . import Pause


class Client:
    """One client on wreq's shared runtime, which starts a thread per core that it may use: one."""

    def __init__(self, authority: str | None) -> None:
        self._client = wreq.Client(no_proxy=True, tls_verify=pathlib.Path(authority) if authority else True)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._client.close()

    async def get(self, url: str) -> int:
        response = await self._client.get(url)
        return len(await response.bytes())

    async def download(self, url: str, pause: Pause | None = None) -> int:
        total = 0
        response = await self._client.get(url)
        async with response.stream() as streamer:
            async for chunk in streamer:
                total += len(chunk)
                if pause is not None:
                    await pause(total)
        return total

    async def upload(self, url: str, piece: bytes, count: int) -> int:
        async def body() -> AsyncGenerator[bytes, str]:
            for _ in range(count):
                yield piece

        response = await self._client.post(url, body=body())
        return int(bytes(await response.bytes()))
