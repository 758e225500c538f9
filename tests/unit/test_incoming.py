"""The shapes of a streamed body: pieces, text, lines. How it arrives is tested against servers."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from itertools import pairwise
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katipo._incoming import as_lines, as_text, in_pieces

T = TypeVar("T")


def source(pieces: Sequence[T]) -> Callable[[], Coroutine[Any, Any, T | None]]:
    """Hands out the pieces, then None for ever."""
    left = list(pieces)

    async def take() -> T | None:
        return left.pop(0) if left else None

    return take


def everything(take: Callable[[], Coroutine[Any, Any, T | None]]) -> list[T]:
    async def collect() -> list[T]:
        found: list[T] = []
        while (item := await take()) is not None:
            found.append(item)
        assert await take() is None, "the end stays the end"
        return found

    return asyncio.run(collect())


@pytest.mark.parametrize(
    ("pieces", "size", "expected"),
    [
        ([b"abc", b"de"], None, [b"abc", b"de"]),
        ([b"abc", b"de"], 2, [b"ab", b"cd", b"e"]),
        ([b"abc", b"de"], 5, [b"abcde"]),
        ([b"abc", b"de"], 100, [b"abcde"]),
        ([b"abcdef"], 1, [b"a", b"b", b"c", b"d", b"e", b"f"]),
        ([], 3, []),
    ],
)
def test_pieces_have_the_size_that_was_asked_for(pieces: list[bytes], size: int | None, expected: list[bytes]) -> None:
    """All but the last."""
    assert everything(in_pieces(source(pieces), size)) == expected


@pytest.mark.parametrize("size", [0, -1])
def test_a_size_below_one_is_refused(size: int) -> None:
    """It would never end."""
    with pytest.raises(ValueError, match="chunk_size"):
        in_pieces(source([b"a"]), size)


def test_text_is_decoded_across_pieces() -> None:
    """A character may begin in one piece and end in the next."""
    raw = "aé€😀".encode()
    assert "".join(everything(as_text(source([raw[i : i + 1] for i in range(len(raw))]), "utf-8"))) == "aé€😀"


def test_text_that_is_cut_short_ends_in_a_replacement_character() -> None:
    """As `Response.text` has it."""
    assert "".join(everything(as_text(source(["é".encode()[:1]]), "utf-8"))) == "�"


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["a\nb\n"], ["a", "b"]),
        (["a\nb"], ["a", "b"]),
        (["a\r", "\nb"], ["a", "b"]),
        (["a\r\n", "\r\nb"], ["a", "", "b"]),
        (["a\rb\r"], ["a", "b"]),
        (["\n\n"], ["", ""]),
        (["a", "b", "c"], ["abc"]),
        (["a\u2028b\x0bc\x85d\n"], ["a\u2028b\x0bc\x85d"]),
        ([], []),
    ],
)
def test_lines_end_at_lf_crlf_and_cr_only(pieces: list[str], expected: list[str]) -> None:
    """U+2028 and its like stay in the line: JSON lines and server-sent events may have them."""
    assert everything(as_lines(source(pieces))) == expected


def test_a_line_is_there_before_the_next_one_begins() -> None:
    """A stream of events must not lag by one."""

    async def first() -> str | None:
        pieces = iter(["data: 1\n"])

        async def take() -> str | None:
            return next(pieces)  # a second call would fail: the line must not need one

        return await as_lines(take)()

    assert asyncio.run(first()) == "data: 1"


@given(st.text(alphabet="ab\r\n"), st.lists(st.integers(0, 20)))
def test_lines_do_not_depend_on_the_pieces(text: str, cuts: list[int]) -> None:
    """However the text was cut, the lines are those of the whole."""
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    pieces = [text[a:b] for a, b in pairwise(places)]
    whole = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert everything(as_lines(source(pieces))) == (whole if whole[-1] else whole[:-1])
