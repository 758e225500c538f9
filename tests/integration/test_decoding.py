"""Content codings: offered, undone, left alone, and damaged."""

from __future__ import annotations

import gzip
import zlib
from typing import TYPE_CHECKING

import brotli  # type: ignore[import-untyped]
import pytest

import katipo
from tests.support.hostile import response, serve
from tests.support.pattern import pattern

if TYPE_CHECKING:
    from tests.conftest import Hostile
    from tests.support.endpoints import Endpoint

CODINGS = ("gzip", "deflate", "br")
SIZE = 300_000


def undo(coding: str, data: bytes) -> bytes:
    """The reference decoding."""
    if coding == "br":
        return bytes(brotli.decompress(data))
    return zlib.decompress(data, 47)


def collect(handle: katipo.Handle) -> tuple[katipo.Started, list[bytes], katipo.Done]:
    """The messages of a whole streamed response."""
    started, *middle, done = handle
    assert isinstance(started, katipo.Started)
    assert isinstance(done, katipo.Done)
    chunks: list[bytes] = []
    for message in middle:
        assert isinstance(message, katipo.Chunk)
        chunks.append(message.data)
    return started, chunks, done


@pytest.mark.parametrize("coding", CODINGS)
def test_a_buffered_response_is_decoded(pool: katipo.Pool, endpoint: Endpoint, coding: str) -> None:
    """The content is what was meant, and the headers stay as they came."""
    answer = pool.get(endpoint("/coded", coding=coding, size=SIZE), **endpoint.options)
    assert answer.content == pattern(0, SIZE)
    assert answer.headers["content-encoding"] == coding
    assert answer.metrics.bytes_received < SIZE


@pytest.mark.parametrize("coding", CODINGS)
def test_a_streamed_response_is_decoded(pool: katipo.Pool, endpoint: Endpoint, coding: str) -> None:
    """The chunks put together are what was meant, and the headers stay as they came."""
    handle = pool.async_get(endpoint("/coded", coding=coding, size=SIZE), stream=True, **endpoint.options)
    started, chunks, done = collect(handle)
    assert b"".join(chunks) == pattern(0, SIZE)
    assert started.headers["content-encoding"] == coding
    assert done.metrics.bytes_received < SIZE


@pytest.mark.parametrize("coding", CODINGS)
def test_without_decode_a_body_comes_as_it_was_sent(pool: katipo.Pool, endpoint: Endpoint, coding: str) -> None:
    """`decode=False` offers nothing and touches nothing, buffered or streamed."""
    url = endpoint("/coded", coding=coding, size=SIZE)
    buffered = pool.get(url, decode=False, **endpoint.options).content
    assert buffered != pattern(0, SIZE)
    assert undo(coding, buffered) == pattern(0, SIZE)
    _, chunks, _ = collect(pool.async_get(url, decode=False, stream=True, **endpoint.options))
    assert undo(coding, b"".join(chunks)) == pattern(0, SIZE)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "brotli"])
def test_a_real_server_s_coding_is_undone(pool: katipo.Pool, web: Endpoint, coding: str) -> None:
    """What httpbin compresses can be read."""
    answer = pool.get(web(f"/{coding}"), **web.options)
    assert answer.json()[{"gzip": "gzipped", "deflate": "deflated", "brotli": "brotli"}[coding]] is True


@pytest.mark.parametrize("stream", [False, True])
def test_what_is_offered(pool: katipo.Pool, endpoint: Endpoint, stream: bool) -> None:
    """All that katipo decodes is offered, nothing without `decode`, and a caller's own offer in its place."""

    def offer(**options: object) -> list[str]:
        handle = pool.async_get(endpoint("/headers"), stream=stream, **endpoint.options, **options)  # type: ignore[arg-type]
        if stream:
            body = b"".join(collect(handle)[1])
            answer = katipo.Response(200, content=body)
        else:
            answer = handle.result()
        return [value for name, value in answer.json()["headers"] if name.lower() == "accept-encoding"]

    assert [part.strip() for part in offer()[0].split(",")] == ["gzip", "deflate", "br"]
    assert offer(decode=False) == []
    assert offer(headers={"Accept-Encoding": "br;q=0.5"}) == ["br;q=0.5"]
    assert offer(headers={"Accept-Encoding": "br"}, decode=False) == ["br"]
    assert offer(headers={"Accept-Encoding": None}) == []


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("headers", [{"Accept-Encoding": "identity"}, {"Accept-Encoding": None}])
def test_what_was_not_offered_is_decoded_all_the_same(
    pool: katipo.Pool, endpoint: Endpoint, stream: bool, headers: dict[str, str | None]
) -> None:
    """A caller's own offer, or none, does not switch decoding off: `decode` does."""
    handle = pool.async_get(
        endpoint("/coded", coding="gzip", size=1000), stream=stream, headers=headers, **endpoint.options
    )
    content = b"".join(collect(handle)[1]) if stream else handle.result().content
    assert content == pattern(0, 1000)


def test_chunks_of_a_bomb_are_no_larger_than_about_a_window(pool: katipo.Pool, endpoint: Endpoint) -> None:
    """A window of 32 KiB gives chunks of about that size, whatever a compressed piece stands for."""
    size = 8 << 20
    handle = pool.async_get(
        endpoint("/coded", coding="gzip", size=size, fill="zero"),
        stream=True,
        stream_window=32768,
        **endpoint.options,
    )
    _, chunks, _ = collect(handle)
    assert sum(map(len, chunks)) == size
    assert max(map(len, chunks)) <= 32768 + 16384


def answer_with(hostile: Hostile, body: bytes, coding: str) -> str:
    """A server that answers once with this body under this Content-Encoding."""
    return hostile(serve(response(body, headers=[("Content-Encoding", coding)]))).url


PLAIN = b"the quick brown fox " * 200


def raw_deflate(data: bytes) -> bytes:
    """Without zlib's frame, as some servers send it."""
    deflater = zlib.compressobj(wbits=-15)
    return deflater.compress(data) + deflater.flush()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("coding", "body"),
    [
        ("x-gzip", gzip.compress(PLAIN)),
        ("GZIP", gzip.compress(PLAIN)),
        ("deflate", raw_deflate(PLAIN)),
        ("identity", PLAIN),
        ("gzip, br", brotli.compress(gzip.compress(PLAIN))),
    ],
    ids=["x-gzip", "upper case", "raw deflate", "identity", "two codings"],
)
def test_codings_in_other_guises(pool: katipo.Pool, hostile: Hostile, stream: bool, coding: str, body: bytes) -> None:
    """Aliases, another case, raw deflate and several codings on top of each other are all undone."""
    handle = pool.async_get(answer_with(hostile, body, coding), stream=stream)
    content = b"".join(collect(handle)[1]) if stream else handle.result().content
    assert content == PLAIN


def test_a_coding_that_is_not_known_is_left_as_it_is_in_streams(pool: katipo.Pool, hostile: Hostile) -> None:
    """A streamed body in a coding that was never offered is delivered as it was sent, as httpx does."""
    handle = pool.async_get(answer_with(hostile, b"who knows", "x-unheard-of"), stream=True)
    assert b"".join(collect(handle)[1]) == b"who knows"


def test_a_coding_that_is_not_known_fails_a_buffered_response(pool: katipo.Pool, hostile: Hostile) -> None:
    """libcurl, which decodes buffered responses, refuses a body in a coding that was never offered."""
    with pytest.raises(katipo.DecodingError) as caught:
        pool.get(answer_with(hostile, b"who knows", "x-unheard-of"))
    assert caught.value.code == "bad_content_encoding"
    assert pool.get(answer_with(hostile, b"who knows", "x-unheard-of"), decode=False).content == b"who knows"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("coding", CODINGS)
def test_a_damaged_body_is_a_decoding_error(pool: katipo.Pool, hostile: Hostile, stream: bool, coding: str) -> None:
    """Bytes that are not what Content-Encoding says fail the request, and say why."""
    body = b"\x1f\x8b\x08\x00this is no compressed body at all" + b"\xff" * 100
    handle = pool.async_get(answer_with(hostile, body, coding), stream=stream)
    with pytest.raises(katipo.DecodingError) as caught:
        list(handle) if stream else handle.result()
    assert (caught.value.code, caught.value.curl_code) == ("bad_content_encoding", 61)
    assert caught.value.request is not None


@pytest.mark.parametrize("coding", CODINGS)
def test_a_compressed_stream_cut_short_is_not_taken_for_whole(pool: katipo.Pool, hostile: Hostile, coding: str) -> None:
    """The compressed data says that there was more, though the message looks complete."""
    whole = {"gzip": gzip.compress, "deflate": zlib.compress, "br": brotli.compress}[coding](PLAIN)
    with pytest.raises(katipo.DecodingError):
        list(pool.async_get(answer_with(hostile, whole[:-12], coding), stream=True))


@pytest.mark.parametrize("method", ["HEAD", "GET"])
@pytest.mark.parametrize("stream", [False, True])
def test_no_body_is_not_a_damaged_body(pool: katipo.Pool, hostile: Hostile, stream: bool, method: str) -> None:
    """HEAD and an empty body are fine whatever Content-Encoding says."""
    block = response(b"", headers=[("Content-Encoding", "gzip")])
    handle = pool.async_request(method, hostile(serve(block)).url, stream=stream)
    content = b"".join(collect(handle)[1]) if stream else handle.result().content
    assert content == b""
