"""pycurl's AsyncCurlMulti: libcurl driven from the event loop itself."""

import io
from types import TracebackType
from typing import Any

import pycurl
from typing_extensions import Self

from . import Pause

_BUFFER_BYTES = 512 * 1024  # the largest that libcurl takes; its default of 16 KiB costs pycurl two thirds of its rate


class Client:
    """One multi handle, with easy handles taken from a list and put back."""

    def __init__(self, authority: str | None) -> None:
        self._authority = authority
        self._multi = pycurl.AsyncCurlMulti()
        self._idle: list[Any] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._multi.aclose()

    async def get(self, url: str) -> int:
        curl = self._idle.pop() if self._idle else self._new()
        body = io.BytesIO()
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.WRITEDATA, body)
        await self._multi.perform(curl)
        self._idle.append(curl)
        return len(body.getvalue())

    async def download(self, url: str, pause: Pause | None = None) -> int:
        if pause is not None:
            raise NotImplementedError("AsyncCurlMulti has no way to await in a write callback")
        total = 0

        def write(data: bytes) -> None:
            nonlocal total
            total += len(data)

        curl = self._new()
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.WRITEFUNCTION, write)
        await self._multi.perform(curl)
        curl.close()
        return total

    async def upload(self, url: str, piece: bytes, count: int) -> int:
        left = count * len(piece)

        def read(size: int) -> bytes:
            nonlocal left
            data = piece[: min(size, left)]
            left -= len(data)
            return data

        curl, answer = self._new(), io.BytesIO()
        curl.setopt(pycurl.URL, url)
        curl.setopt(pycurl.POST, True)
        curl.setopt(pycurl.HTTPHEADER, ["Transfer-Encoding: chunked", "Expect:"])
        curl.setopt(pycurl.UPLOAD_BUFFERSIZE, _BUFFER_BYTES)
        curl.setopt(pycurl.READFUNCTION, read)
        curl.setopt(pycurl.WRITEDATA, answer)
        await self._multi.perform(curl)
        curl.close()
        return int(answer.getvalue())

    def _new(self) -> Any:
        curl = pycurl.Curl()
        curl.setopt(pycurl.NOSIGNAL, True)
        curl.setopt(pycurl.PROXY, "")
        curl.setopt(pycurl.PIPEWAIT, True)
        if self._authority:
            curl.setopt(pycurl.CAINFO, self._authority)
        return curl
