"""One large body, streamed through Python in one direction."""

from benchmarks.clients import Adapter

from .scenario import Effort, Scenario, check

_PIECE = bytes(64 * 1024)  # what uploads are sent in: the size of asyncio's own buffers


async def _warm_up(client: Adapter, base: str) -> None:
    await client.get(f"{base}/small")


async def _download(client: Adapter, base: str, effort: Effort) -> int:
    check(await client.download(f"{base}/big?size={effort.size}"), effort.size)
    return effort.size


async def _upload(client: Adapter, base: str, effort: Effort) -> int:
    count = effort.size // len(_PIECE)
    check(await client.upload(f"{base}/upload", _PIECE, count), count * len(_PIECE))
    return count * len(_PIECE)


DOWNLOAD = Scenario(
    name="download",
    title="one large download, streamed into Python",
    unit="bytes",
    server="plain",
    warm_up=_warm_up,
    run=_download,
)
UPLOAD = Scenario(
    name="upload",
    title="one large upload, streamed from Python in pieces of 64 KiB",
    unit="bytes",
    server="plain",
    warm_up=_warm_up,
    run=_upload,
)
