"""Content codings of streamed bodies, decoded with bounded output (RFC 9110 8.4).

    decoder = make_decoder(headers)          None: nothing to decode
    decoder.feed(data)                       what arrived
    while piece := decoder.next(65536): ...  at most so many bytes; b"": feed more
    decoder.finish()                         at the end of the body

A few bytes can stand for gigabytes. A decoder never works ahead: it holds the input it was fed, at most the output
asked for, and 64 KiB for each coding. What is fed is its caller's to bound.

Policies. A body without a byte is no error, whatever its headers say (HEAD, 204, 304). gzip may have several members;
what follows a member and is not another one is ignored, as browsers and GNU gzip do; so is what follows a deflate
stream. After a brotli stream nothing may follow. "deflate" is zlib (RFC 1950), and also the raw form (RFC 1951) that
some servers send. A coding that is not known leaves the whole body as it is.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Protocol, cast, final

from .errors import DecodingError
from .headers import Headers

__all__ = ["Decoder", "make_decoder"]

_SLICE: Final = 16 * 1024
"""Input is given to zlib in slices of so many bytes: it copies what it did not consume at every call. libcurl's own
write size, so that its pieces are rarely cut."""
_BETWEEN: Final = 64 * 1024
"""Output taken at a time from an inner coding of several. Arbitrary."""
_BROTLI_OUTPUT: Final = 32 * 1024 - 16
"""brotli's output grows in blocks and overshoots its limit by up to a block; its first block is this large (brotli
1.2)."""
_MAX_CODINGS: Final = 5
"""As libcurl (MAX_ENCODE_STACK): each coding multiplies what a byte can cost."""
_GZIP_MAGIC: Final = b"\x1f\x8b"
_CURL_CODE: Final = 61


def _error(message: str) -> DecodingError:
    return DecodingError(message, curl_code=_CURL_CODE)


class _Stage(Protocol):
    """One coding. `next` is called until it returns b"", then `feed` again."""

    @property
    def pending(self) -> bool: ...
    def feed(self, data: bytes) -> None: ...
    def next(self, max_bytes: int) -> bytes: ...
    def finish(self) -> None: ...


class _Input:
    """What was fed and not decoded yet, in slices."""

    __slots__ = ("_pieces",)

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def feed(self, data: bytes) -> None:
        if data:
            self._pieces.append(memoryview(data))

    def take(self) -> memoryview:
        piece = self._pieces.popleft()
        if len(piece) > _SLICE:
            self._pieces.appendleft(piece[_SLICE:])
            return piece[:_SLICE]
        return piece

    def give_back(self, data: bytes | memoryview) -> None:
        if data:
            self._pieces.appendleft(memoryview(data))

    def clear(self) -> None:
        self._pieces.clear()


class _Zlib:
    """gzip and deflate."""

    __slots__ = ("_ended", "_fed", "_inflate", "_input", "_members", "_more", "_name", "_start", "_zlib")

    def __init__(self, *, gzip: bool) -> None:
        import zlib

        self._zlib = zlib
        self._name = "gzip" if gzip else "deflate"
        self._input = _Input()
        # zlib.decompressobj has no type with a public name. None before and between members.
        self._inflate: Any = None
        self._members = 0  # complete ones
        self._start = b""  # the first byte of a member whose second has not come
        self._fed = False
        self._more = False  # the last call filled its room: zlib may hold more output, even without input
        self._ended = False  # whatever follows is ignored

    @property
    def pending(self) -> bool:
        return not self._ended and (self._more or bool(self._input))

    def feed(self, data: bytes) -> None:
        if data and not self._ended:
            self._fed = True
            self._input.feed(data)

    def next(self, max_bytes: int) -> bytes:
        while self.pending and (self._inflate is not None or self._begin()):
            inflate: Any = self._inflate
            data = self._input.take() if self._input else b""
            try:
                out: bytes = inflate.decompress(data, max_bytes)
            except self._zlib.error as error:
                raise _error(f"the body is not valid {self._name}: {error}") from error
            self._more = len(out) == max_bytes
            if inflate.eof:
                self._end_member(inflate.unused_data)
            else:
                self._input.give_back(inflate.unconsumed_tail)
            if out:
                return out
        return b""

    def _begin(self) -> bool:
        """Make what decodes the next member. The first two bytes tell zlib from raw deflate, a member from garbage."""
        start = self._start
        while len(start) < 2 and self._input:
            piece = self._input.take()
            taken = 2 - len(start)
            start += bytes(piece[:taken])
            self._input.give_back(piece[taken:])
        if len(start) < 2:
            self._start = start
            return False
        if self._members and start != _GZIP_MAGIC:
            self._end()
            return False
        self._start = b""
        self._input.give_back(start)
        self._inflate = self._zlib.decompressobj(self._wbits(start))
        return True

    def _wbits(self, start: bytes) -> int:
        if self._name == "gzip":
            return 16 + self._zlib.MAX_WBITS
        # RFC 1950 2.2: method 8, and the two bytes are a multiple of 31. No encoder starts raw deflate like that.
        is_zlib = start[0] & 0x0F == 8 and int.from_bytes(start, "big") % 31 == 0
        return self._zlib.MAX_WBITS if is_zlib else -self._zlib.MAX_WBITS

    def _end_member(self, rest: bytes) -> None:
        self._inflate = None
        self._more = False
        self._members += 1
        self._input.give_back(rest)
        if self._name == "deflate":
            self._end()

    def _end(self) -> None:
        self._ended = True
        self._input.clear()

    def finish(self) -> None:
        between_members = self._members > 0 and self._inflate is None
        if self._fed and not self._ended and not between_members:
            raise _error(f"the body ended before its {self._name} data did")


class _BrotliDecompressor(Protocol):
    def process(self, data: bytes | memoryview, output_buffer_limit: int = ...) -> bytes: ...
    def is_finished(self) -> bool: ...
    def can_accept_more_data(self) -> bool: ...


class _Brotli:
    """br (RFC 7932)."""

    __slots__ = ("_brotli", "_fed", "_input", "_invalid", "_more", "_surplus")

    def __init__(self) -> None:
        import brotli  # type: ignore[import-untyped]

        self._invalid: type[Exception] = brotli.error  # pyright: ignore[reportUnknownMemberType]
        self._brotli = cast("_BrotliDecompressor", brotli.Decompressor())  # pyright: ignore[reportUnknownMemberType]
        self._input = _Input()
        self._surplus = memoryview(b"")  # decoded beyond what was asked for, less than one of brotli's blocks
        self._fed = False
        # The last call filled its room: brotli may hold more output, and can_accept_more_data() speaks of input alone.
        self._more = False

    @property
    def pending(self) -> bool:
        return bool(self._surplus) or bool(self._input) or self._more or not self._brotli.can_accept_more_data()

    def feed(self, data: bytes) -> None:
        if data:
            self._fed = True
            self._input.feed(data)

    def next(self, max_bytes: int) -> bytes:
        while not self._surplus:
            if self._more or not self._brotli.can_accept_more_data():
                data: bytes | memoryview = b""
            elif not self._input:
                return b""
            elif self._brotli.is_finished():
                raise _error("the body goes on after its brotli data")
            else:
                data = self._input.take()
            try:
                out = self._brotli.process(data, output_buffer_limit=_BROTLI_OUTPUT)
            except self._invalid as error:
                raise _error("the body is not valid brotli") from error
            self._more = len(out) >= _BROTLI_OUTPUT and not self._brotli.is_finished()
            self._surplus = memoryview(out)
        piece = bytes(self._surplus[:max_bytes])
        self._surplus = self._surplus[max_bytes:]
        return piece

    def finish(self) -> None:
        if self._fed and not self._brotli.is_finished():
            raise _error("the body ended before its brotli data did")


class _TooMany:
    """More codings than a body may have. An error only where there is a body."""

    __slots__ = ("_fed",)

    def __init__(self) -> None:
        self._fed = False

    @property
    def pending(self) -> bool:
        return self._fed

    def feed(self, data: bytes) -> None:
        self._fed = self._fed or bool(data)

    def next(self, max_bytes: int) -> bytes:
        if self._fed:
            raise _error(f"the body has more than {_MAX_CODINGS} content codings")
        return b""

    def finish(self) -> None:
        self.next(0)


@final
class Decoder:
    """Undoes the content codings of one body. Made by make_decoder; for one consumer at a time."""

    __slots__ = ("_stages",)

    def __init__(self, stages: list[_Stage]) -> None:
        self._stages = stages  # in the order of decoding: the coding applied last is first

    @property
    def pending(self) -> bool:
        """True while `next` may have output, or an error, without being fed more."""
        return any(stage.pending for stage in self._stages)

    def feed(self, data: bytes) -> None:
        """Take a piece of the body as it was sent. Kept, not copied, until decoded."""
        self._stages[0].feed(data)

    def next(self, max_bytes: int) -> bytes:
        """Some decoded bytes, at most `max_bytes`; b"" when more must be fed first.

        Raises DecodingError for what cannot be decoded, after which the decoder is not to be used again; ValueError for
        `max_bytes` below 1.
        """
        if max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        return self._pull(len(self._stages) - 1, max_bytes)

    def _pull(self, index: int, max_bytes: int) -> bytes:
        stage = self._stages[index]
        while True:
            out = stage.next(max_bytes)
            if out or index == 0:
                return out
            inner = self._pull(index - 1, _BETWEEN)
            if not inner:
                return b""
            stage.feed(inner)

    def finish(self) -> None:
        """The body has ended, and `next` has returned b"". Raises DecodingError if it was cut short."""
        for stage in self._stages:
            stage.finish()


def _stage(coding: str) -> _Stage | None:
    if coding in ("gzip", "x-gzip"):  # equivalent: RFC 9110 8.4.1.3
        return _Zlib(gzip=True)
    if coding == "deflate":
        return _Zlib(gzip=False)
    if coding == "br":
        return _Brotli()
    return None


def make_decoder(headers: Headers) -> Decoder | None:
    """What decodes a body with these headers; None if it is to be left as it is: no coding, or one that is not
    known."""
    codings = [coding.lower() for coding in headers.get_list("content-encoding", split_commas=True)]
    codings = [coding for coding in codings if coding not in ("", "identity")]
    if not codings:
        return None
    stages: list[_Stage] = []
    for coding in reversed(codings):
        stage = _stage(coding)
        if stage is None:
            return None
        stages.append(stage)
    return Decoder(stages if len(stages) <= _MAX_CODINGS else [_TooMany()])
