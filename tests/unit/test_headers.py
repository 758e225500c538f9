"""Headers: lookup, order, blocks as received, and what may be sent."""

from __future__ import annotations

import copy
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katipo.errors import BadOptions
from katipo.headers import Headers, validate_header

BLOCK = (
    b"HTTP/1.1 200 OK: fine\r\nContent-Type: text/html\r\nX:val\r\nSet-Cookie: a=1\r\nset-cookie: b=2, c\r\n"
    b"Folded: one\r\n\ttwo\r\n  three\r\nEmpty:\r\nColons: a:b: c\r\nno header\r\n: nameless\r\n\r\n"
)
TOKENS = st.text("!#$%&'*+-.^_`|~0123456789abcXYZ", min_size=1, max_size=12)
VALUES = st.text(st.characters(min_codepoint=0x20, exclude_characters="\x7f", codec="utf-8"), max_size=20)


def test_names_are_compared_without_case() -> None:
    """Lookup, membership and deletion ignore the case of a name."""
    headers = Headers({"Content-Type": "text/plain"})
    assert headers["CONTENT-type"] == headers.get("content-type") == "text/plain"
    assert "content-TYPE" in headers
    del headers["CONTENT-TYPE"]
    assert "Content-Type" not in headers


def test_several_values_keep_their_order_and_join_with_commas() -> None:
    """get_list and multi_items show fields; indexing and items show them joined."""
    headers = Headers([("A", "1"), ("b", "2"), ("a", "3, 4")])
    assert headers["a"] == "1, 3, 4"
    assert headers.get_list("a") == ["1", "3, 4"]
    assert headers.get_list("A", split_commas=True) == ["1", "3", "4"]
    assert headers.multi_items() == [("a", "1"), ("b", "2"), ("a", "3, 4")]
    assert list(headers.items()) == [("a", "1, 3, 4"), ("b", "2")]
    assert list(headers) == list(headers.keys()) == ["a", "b"]
    assert list(headers.values()) == ["1, 3, 4", "2"]
    assert headers.raw == [(b"A", b"1"), (b"b", b"2"), (b"a", b"3, 4")]
    assert len(headers) == 3


def test_a_name_that_is_not_there() -> None:
    """Each way to look says so in its own manner."""
    headers = Headers()
    assert headers.get("x") is None
    assert headers.get("x", "d") == "d"
    assert headers.get_list("x") == []
    assert 3 not in headers  # type: ignore[comparison-overlap]
    with pytest.raises(KeyError, match="x"):
        headers["x"]
    with pytest.raises(KeyError, match="x"):
        del headers["x"]


def test_setting_replaces_all_values_in_the_place_of_the_first() -> None:
    """Order is kept, and no old value stays."""
    headers = Headers([("a", "1"), ("b", "2"), ("A", "3")])
    headers["A"] = "4"
    headers["c"] = "5"
    assert headers.raw == [(b"A", b"4"), (b"b", b"2"), (b"c", b"5")]


def test_update_replaces_names_and_keeps_all_new_values() -> None:
    """update is not one assignment for each pair."""
    headers = Headers([("a", "1"), ("b", "2"), ("a", "3")])
    headers.update([("A", "4"), ("a", "5")])
    assert headers.multi_items() == [("b", "2"), ("a", "4"), ("a", "5")]


def test_a_copy_is_independent() -> None:
    """Changing one of two does not change the other, lazily parsed or not."""
    original = Headers.from_block(BLOCK)
    for made in (original.copy(), copy.copy(original), Headers(original)):
        made["x"] = "changed"
        assert original["x"] == "val"


def test_equality_ignores_case_and_order_but_not_values() -> None:
    """Headers compare with whatever makes headers."""
    headers = Headers([("A", "1"), ("b", "2")])
    assert headers == Headers([("B", "2"), ("a", "1")])
    assert headers == {"a": "1", "B": "2"}
    assert headers == [("a", "1"), ("B", "2")]
    assert headers != {"a": "1"}
    assert headers != {"a": "1", "b": "x"}
    assert headers != 3
    assert headers != [1, 2]
    with pytest.raises(TypeError):
        hash(headers)


def test_a_block_is_read_as_received() -> None:
    """No space after the colon, folded lines, colons in values; the status line and what is no header do not count."""
    headers = Headers.from_block(BLOCK)
    assert headers.raw == [
        (b"Content-Type", b"text/html"),
        (b"X", b"val"),
        (b"Set-Cookie", b"a=1"),
        (b"set-cookie", b"b=2, c"),
        (b"Folded", b"one two three"),
        (b"Empty", b""),
        (b"Colons", b"a:b: c"),
    ]
    assert headers.get_list("set-cookie") == ["a=1", "b=2, c"]


def test_trailers_have_no_status_line() -> None:
    """A block may start with a header at once, end without a blank line, or be empty."""
    assert Headers.from_block(b"X-Sum: 1\r\nY: 2").multi_items() == [("x-sum", "1"), ("y", "2")]
    assert len(Headers.from_block(b"")) == 0
    assert Headers.from_block(b" folded into nothing\r\nA: 1\n").multi_items() == [("a", "1")]


def test_of_several_blocks_the_last_counts() -> None:
    """Headers of a 1xx response or a redirect do not mix with the final ones."""
    headers = Headers.from_block(b"HTTP/1.1 100 Continue\r\nA: 1\r\n\r\nHTTP/2 200 \r\nB: 2\r\n\r\n")
    assert headers.multi_items() == [("b", "2")]


def test_bytes_become_text_as_utf8_or_latin1() -> None:
    """One encoding fits all values of a set, the first that can."""
    assert Headers.from_block("A: ü\r\n".encode())["a"] == "ü"
    assert Headers.from_block("A: ü\r\n".encode("latin-1"))["a"] == "ü"
    assert Headers.from_block(b"A: u\r\n").encoding == "ascii"
    headers = Headers.from_block(b"A: \xfc\r\n")
    headers.encoding = "cp437"
    assert headers["a"] == "ⁿ"
    headers["b"] = "ü"
    headers.encoding = "utf-8"
    assert headers.get("b") == "ü"


@given(st.lists(st.tuples(TOKENS, VALUES.map(str.strip)), max_size=6))
def test_what_is_written_reads_back(pairs: list[tuple[str, str]]) -> None:
    """Pairs, made into a block and parsed, are the same fields in the same order."""
    headers = Headers(pairs)
    block = b"".join(name + b": " + value + b"\r\n" for name, value in headers.raw)
    parsed = Headers.from_block(b"HTTP/1.1 200 OK\r\n" + block + b"\r\n")
    assert parsed == headers
    assert [name for name, _ in parsed.raw] == [name for name, _ in headers.raw]
    assert pickle.loads(pickle.dumps(parsed)).raw == headers.raw


@given(st.binary(max_size=200))
def test_any_bytes_can_be_a_block(block: bytes) -> None:
    """A hostile server's headers never raise."""
    headers = Headers.from_block(block)
    assert headers.items() is not None
    assert repr(headers)


@pytest.mark.parametrize(
    "name",
    [
        "Authorization",
        "proxy-authorization",
        "Cookie",
        "Set-Cookie",
        "X-Api-Key",
        "X-Auth-Token",
        "X-Amz-Security-Token",
        "Api_Key",
        "X-Password",
        "Ocp-Apim-Subscription-Key",
        "X-Signature",
    ],
)
def test_the_repr_hides_secrets(name: str) -> None:
    """Names of credentials show, their values do not."""
    for headers in (Headers({name: "hunter2"}), Headers([(name, "hunter2"), (name, "hunter2")])):
        assert "hunter2" not in repr(headers)
        assert name.lower() in repr(headers)


def test_the_repr_shows_what_is_harmless_and_hides_userinfo() -> None:
    """Ordinary values are for debugging; URLs in them lose their userinfo."""
    assert repr(Headers({"Keep-Alive": "5", "A": "b"})) == "Headers({'keep-alive': '5', 'a': 'b'})"
    assert repr(Headers([("A", "b"), ("a", "c")])) == "Headers([('a', 'b'), ('a', 'c')])"
    assert "hunter2" not in repr(Headers({"Location": "http://u:hunter2@h/"}))


def test_parts_of_other_types_are_refused() -> None:
    """Numbers are not silently made into text."""
    with pytest.raises(TypeError, match="value must be str or bytes, not int"):
        Headers({"a": 1})  # type: ignore[arg-type]


def test_a_valid_request_header_becomes_bytes() -> None:
    """Text is sent as UTF-8, white space around a value is dropped, bytes stay."""
    assert validate_header("X-Name", " ü\t") == (b"X-Name", "ü".encode())
    assert validate_header(b"a", b"\xff\t\xfe") == (b"a", b"\xff\t\xfe")
    assert validate_header("a", "") == (b"a", b"")


@pytest.mark.parametrize("name", ["", "a b", "a:", "a\r\nb", "ü", "a\0", "(a)", b"a\n"])
def test_a_name_that_is_no_token_is_refused(name: str | bytes) -> None:
    """RFC 9110 5.6.2."""
    with pytest.raises(BadOptions, match="headers"):
        validate_header(name, "x")


@pytest.mark.parametrize("character", ["\r", "\n", "\0", "\x01", "\x7f", "\ud800"])
def test_a_value_with_a_control_character_is_refused_without_showing_it(character: str) -> None:
    """A value cannot make a header of its own, and does not appear in the error."""
    with pytest.raises(BadOptions, match="name") as caught:
        validate_header("name", f"hunter2{character}Evil: 1")
    assert "hunter2" not in repr(caught.value)
    assert caught.value.code == "bad_opts"


def test_a_value_of_another_type_is_refused() -> None:
    """The error names the header."""
    with pytest.raises(BadOptions, match="'a': header value must be str or bytes, not int"):
        validate_header("a", 3)  # type: ignore[arg-type]
    with pytest.raises(BadOptions, match="int: header name"):
        validate_header(3, "a")  # type: ignore[arg-type]
