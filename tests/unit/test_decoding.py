"""Content codings: right, bounded, and strict about what is cut short."""

from __future__ import annotations

import gzip
import random
import tracemalloc
import zlib
from collections.abc import Callable
from typing import cast

import brotli  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from katipo.decoding import Decoder, make_decoder
from katipo.errors import DecodingError
from katipo.headers import Headers
from katipo.options import OFFER


def raw_deflate(data: bytes) -> bytes:
    compress = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return compress.compress(data) + compress.flush()


def br(data: bytes) -> bytes:
    return cast("bytes", brotli.compress(data, quality=3))


Encoder = Callable[[bytes], bytes]
ENCODERS: list[tuple[str, Encoder]] = [
    ("gzip", gzip.compress),
    ("x-gzip", gzip.compress),
    ("deflate", zlib.compress),
    ("deflate", raw_deflate),
    ("br", br),
    ("gzip, br", lambda data: br(gzip.compress(data))),
    ("br, identity, GZIP", lambda data: gzip.compress(br(data))),
    ("deflate, gzip, br, gzip, deflate", lambda d: zlib.compress(gzip.compress(br(gzip.compress(raw_deflate(d)))))),
]


def decoder_for(coding: str) -> Decoder:
    decoder = make_decoder(Headers({"Content-Encoding": coding}))
    assert decoder is not None
    return decoder


def decode(decoder: Decoder, pieces: list[bytes], max_bytes: int = 1000) -> bytes:
    out: list[bytes] = []
    for piece in pieces:
        decoder.feed(piece)
        while data := decoder.next(max_bytes):
            assert len(data) <= max_bytes
            out.append(data)
        assert not decoder.pending
    decoder.finish()
    return b"".join(out)


def noise(size: int) -> bytes:
    return random.Random(7).randbytes(size)


@pytest.mark.parametrize(("coding", "encode"), ENCODERS)
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_however_a_body_is_cut_it_decodes(coding: str, encode: Encoder, data: st.DataObject) -> None:
    """The pieces of the input and the size asked for do not change what comes out."""
    body = data.draw(st.binary(max_size=300)) * data.draw(st.sampled_from([1, 300]))
    encoded = encode(body)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(encoded)), max_size=5)))
    pieces = [encoded[a:b] for a, b in zip([0, *cuts], [*cuts, len(encoded)], strict=True)]
    assert decode(decoder_for(coding), pieces, data.draw(st.integers(1, 70_000)) if len(body) < 400 else 777) == body


@pytest.mark.parametrize(("coding", "encode"), ENCODERS)
def test_byte_by_byte_both_ways(coding: str, encode: Encoder) -> None:
    """One byte in, one byte out."""
    encoded = encode(b"hello, hello, hello")
    assert decode(decoder_for(coding), [encoded[i : i + 1] for i in range(len(encoded))], 1) == b"hello, hello, hello"


@pytest.mark.parametrize(("coding", "encode"), ENCODERS)
def test_a_large_piece_decodes_in_one_feed(coding: str, encode: Encoder) -> None:
    """A piece larger than the decoder's own slices, of data that does not compress."""
    body = noise(200_000)
    assert decode(decoder_for(coding), [encode(body)], 65536) == body


@pytest.mark.parametrize(("coding", "encode"), ENCODERS)
def test_a_bomb_never_takes_more_memory_than_asked_for(coding: str, encode: Encoder) -> None:
    """32 MiB of zeros come in pieces, and what is held meanwhile stays small."""
    encoded = encode(bytes(32 << 20))
    decoder = decoder_for(coding)
    tracemalloc.start()
    try:
        decoder.feed(encoded)
        total = 0
        while piece := decoder.next(16384):
            assert len(piece) <= 16384
            total += len(piece)
        decoder.finish()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert total == 32 << 20
    assert peak < 1 << 20


@pytest.mark.parametrize(("coding", "encode"), ENCODERS)
def test_a_body_cut_short_is_an_error_at_the_end(coding: str, encode: Encoder) -> None:
    """At any byte: what was decoded so far is delivered, and finish says that it is not all."""
    encoded = encode(b"hello, world")
    for length in range(1, len(encoded)):
        decoder = decoder_for(coding)
        decoder.feed(encoded[:length])
        while decoder.next(100):
            pass
        with pytest.raises(DecodingError, match="ended before") as caught:
            decoder.finish()
        assert (caught.value.code, caught.value.curl_code) == ("bad_content_encoding", 61)


@pytest.mark.parametrize("coding", [coding for coding, _ in ENCODERS] + ["gzip, " * 7 + "gzip"])
def test_a_body_without_a_byte_is_no_error(coding: str) -> None:
    """HEAD, 204 and 304 have the headers of a body and none."""
    assert decode(decoder_for(coding), []) == b""
    assert decode(decoder_for(coding), [b""]) == b""


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "gzip, br"])
def test_what_is_not_encoded_at_all_is_an_error(coding: str) -> None:
    """A server that claims a coding and sends plain text."""
    decoder = decoder_for(coding)
    decoder.feed(b"<html>plain text</html>")
    with pytest.raises(DecodingError, match="not valid") as caught:
        decoder.next(100)
    assert (caught.value.code, caught.value.curl_code) == ("bad_content_encoding", 61)


def test_a_damaged_checksum_is_an_error() -> None:
    """gzip's CRC-32 is looked at."""
    encoded = bytearray(gzip.compress(b"hello"))
    encoded[-5] ^= 1
    with pytest.raises(DecodingError, match="not valid gzip"):
        decode(decoder_for("gzip"), [bytes(encoded)])


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_gzip_members_follow_each_other(size: int) -> None:
    """RFC 1952 2.2, wherever the input is cut between them, empty members included."""
    encoded = gzip.compress(b"one ") + gzip.compress(b"") + gzip.compress(b"two")
    assert decode(decoder_for("gzip"), [encoded[i : i + size] for i in range(0, len(encoded), size)]) == b"one two"


@pytest.mark.parametrize("garbage", [b"\0", b"\0" * 100, b"\x1f", b"\x1fx", b"garbage"])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_what_follows_gzip_or_deflate_is_ignored(coding: str, garbage: bytes) -> None:
    """With the last piece or after it."""
    encoded = gzip.compress(b"hello") if coding == "gzip" else zlib.compress(b"hello")
    assert decode(decoder_for(coding), [encoded + garbage]) == b"hello"
    assert decode(decoder_for(coding), [encoded, garbage, garbage]) == b"hello"


def test_a_second_member_cut_short_is_an_error() -> None:
    """It begins like a member, so it has to end like one."""
    with pytest.raises(DecodingError, match="ended before"):
        decode(decoder_for("gzip"), [gzip.compress(b"hello") + gzip.compress(b"world")[:-1]])


def test_brotli_s_output_goes_on_when_its_input_has_ended() -> None:
    """All of a body whose last bytes stand for far more than is decoded at a time is delivered, in one piece or two."""
    body = bytes(range(251)) * 4000
    compressor = brotli.Compressor(quality=1)
    pieces = [cast("bytes", compressor.process(body)), cast("bytes", compressor.finish())]
    assert decode(decoder_for("br"), pieces) == body
    assert decode(decoder_for("br"), [b"".join(pieces)]) == body


def test_nothing_may_follow_brotli() -> None:
    """With the last piece or after it."""
    with pytest.raises(DecodingError, match="brotli"):
        decode(decoder_for("br"), [br(b"hello") + b"x"])
    with pytest.raises(DecodingError, match="brotli"):
        decode(decoder_for("br"), [br(b"hello"), b"x"])


def test_pending_says_whether_there_may_be_more() -> None:
    """True from the first byte fed until next has nothing left."""
    decoder = decoder_for("gzip")
    assert not decoder.pending
    decoder.feed(gzip.compress(bytes(1000)))
    assert decoder.pending
    assert decoder.next(999) == bytes(999)
    assert decoder.pending
    assert decoder.next(999) == b"\0"
    assert decoder.next(999) == b""
    assert not decoder.pending


def test_data_fed_before_the_last_was_taken_is_kept_in_order() -> None:
    """Feeding does not depend on what was taken."""
    body = noise(50_000)
    encoded = br(gzip.compress(body))
    decoder = decoder_for("gzip, br")
    out = b""
    for i in range(0, len(encoded), 5000):
        decoder.feed(encoded[i : i + 5000])
        out += decoder.next(100)
    while piece := decoder.next(100):
        out += piece
    decoder.finish()
    assert out == body


def test_the_size_asked_for_must_be_at_least_one() -> None:
    """0 would mean "without bound" to zlib."""
    with pytest.raises(ValueError, match="at least 1"):
        decoder_for("gzip").next(0)


@pytest.mark.parametrize("coding", [None, "", "identity", "zstd", "gzip, zstd", "nonsense, br", " , "])
def test_a_body_without_a_known_coding_is_left_as_it_is(coding: str | None) -> None:
    """One that is not known among several makes all of them so."""
    assert make_decoder(Headers({} if coding is None else {"content-encoding": coding})) is None


def test_codings_in_several_headers_are_one_list() -> None:
    """RFC 9110 5.3."""
    decoder = make_decoder(Headers([("Content-Encoding", "gzip"), ("content-encoding", "br")]))
    assert decoder is not None
    assert decode(decoder, [br(gzip.compress(b"hello"))]) == b"hello"


def test_more_codings_than_five_are_an_error_once_there_is_a_body() -> None:
    """As in libcurl."""
    decoder = decoder_for("gzip, " * 5 + "gzip")
    decoder.feed(b"x")
    assert decoder.pending
    with pytest.raises(DecodingError, match="more than 5"):
        decoder.next(1)


def test_what_is_offered_is_what_can_be_decoded() -> None:
    """Each coding of the offer has a decoder."""
    assert OFFER == b"gzip, deflate, br"
    assert all(decoder_for(coding) for coding in OFFER.decode().split(", "))
