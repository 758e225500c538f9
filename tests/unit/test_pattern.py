"""Patterns that are compiled when they are first used."""

from __future__ import annotations

import re

import pytest

from katipo._pattern import pattern


def test_a_pattern_does_what_a_compiled_one_does() -> None:
    """The first time, and afterwards; with flags; of text and of bytes."""
    word = pattern("(a)(b+)", re.IGNORECASE)
    for _ in range(2):
        match = word.search("xaBBx")
        assert match is not None
        assert match.groups() == ("a", "BB")
        assert word.fullmatch("xab") is None
        assert word.match("abx") is not None
        assert word.findall("ab ABB") == [("a", "b"), ("A", "BB")]
        assert word.sub(lambda found: found[2], "ab,AB") == "b,B"
    assert pattern(rb"\d+").fullmatch(b"123") is not None


@pytest.mark.parametrize("name", [name for name in dir(re.Pattern) if not name.startswith("_")])
def test_it_has_all_that_a_compiled_one_has(name: str) -> None:
    """Whatever is asked for first."""
    assert type(getattr(pattern("a"), name)) is type(getattr(re.compile("a"), name))


def test_what_no_pattern_has_is_missed_at_once() -> None:
    """As it is by a compiled one."""
    with pytest.raises(AttributeError, match="frobnicate"):
        pattern("a").frobnicate  # type: ignore[attr-defined] # noqa: B018


def test_it_is_compiled_when_it_is_used() -> None:
    """Not before: a mistake shows then."""
    wrong = pattern("(")
    with pytest.raises(re.error, match="unterminated"):
        wrong.search("")
