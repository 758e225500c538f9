"""Values without the cost of `dataclasses`: that nobody can tell."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import sys
from typing import Any

import pytest

import katipo
from katipo import messages
from katipo._frozen import Frozen, dataclass


@dataclass(frozen=True, slots=True)
class Point:
    """Somewhere."""

    x: int
    y: int = 0
    name: str = "point"

    def above(self) -> Point:
        return Point(self.x, self.y + 1)


@dataclasses.dataclass(frozen=True, slots=True)
class Twin:
    """Somewhere."""

    x: int
    y: int = 0
    name: str = "point"


class Named(Point):
    def __init__(self, name: str) -> None:
        super().__init__(1, name=name)


DATACLASSES: list[Any] = [
    messages.Informational,
    messages.Started,
    messages.Chunk,
    messages.Done,
    messages.Responded,
    messages.Failed,
    katipo.Metrics,
    katipo.PoolStatistics,
    katipo.Features,
]


def test_it_looks_as_dataclasses_would_have_made_it() -> None:
    """Signature, fields, parameters, repr, order of matching, documentation."""
    assert str(inspect.signature(Point)) == str(inspect.signature(Twin))
    assert repr(dataclasses.fields(Point)) == repr(dataclasses.fields(Twin))
    point: Any = Point
    twin: Any = Twin
    assert repr(point.__dataclass_params__) == repr(twin.__dataclass_params__)
    assert repr(Point(1)) == repr(Twin(1)).replace("Twin", "Point")
    assert point.__match_args__ == twin.__match_args__
    assert (Point.__doc__, Point.__module__, Point.__qualname__) == (Twin.__doc__, Twin.__module__, "Point")
    assert Point.__init__.__qualname__ == "Point.__init__"


def test_it_is_made_as_dataclasses_would_make_it() -> None:
    """By position, by name, with defaults; TypeError for what does not fit."""
    assert Point(1, y=2) == Point(x=1, y=2, name="point")
    assert (Point(1).x, Point(1).y, Point(1).name) == (1, 0, "point")
    point: Any = Point
    for wrong in ((), (1, 2, "n", 4)):
        with pytest.raises(TypeError, match="__init__"):
            point(*wrong)
    with pytest.raises(TypeError, match="unexpected keyword argument 'z'"):
        point(1, z=2)
    assert Point(1).above() == Point(1, 1)


def test_it_is_equal_by_its_parts_and_to_nothing_else() -> None:
    """Nor to another class with the same parts."""
    assert Point(1) == Point(1)
    assert hash(Point(1)) == hash(Point(1))
    assert Point(1) != Point(2)
    others: list[Any] = [Twin(1), Named("point"), (1, 0, "point")]
    assert not [other for other in others if Point(1) == other]


def test_it_cannot_be_changed() -> None:
    """Neither a part, nor by a new attribute; copies with changes can be had."""
    point: Any = Point(1)
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign to field 'x'"):
        point.x = 2
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot delete field 'x'"):
        del point.x
    with pytest.raises(AttributeError):
        point.other = 2
    assert dataclasses.replace(point, x=2) == Point(2)
    assert dataclasses.asdict(point) == {"x": 1, "y": 0, "name": "point"}
    if sys.version_info >= (3, 13):
        assert copy.replace(point, x=2) == Point(2)


def test_a_subclass_may_have_an_init_of_its_own() -> None:
    """It calls the one that is made when it is first looked for; that of the subclass stays."""
    assert [Named(name).name for name in ("a", "b")] == ["a", "b"]
    assert Named("a").x == 1
    assert Point(3).x == 3

    @dataclasses.dataclass(frozen=True)
    class Further(Point):
        z: int = 5

    assert [field.name for field in dataclasses.fields(Further)] == ["x", "y", "name", "z"]
    assert Further(1).z == 5


@pytest.mark.parametrize("made", DATACLASSES)
def test_the_public_ones_are_dataclasses(made: Any) -> None:
    """To whoever asks: is_dataclass, fields, match."""
    assert [dataclasses.is_dataclass(made)] == [True]  # not the call itself, which narrows the type
    names = [field.name for field in dataclasses.fields(made)]
    assert tuple(names) == made.__match_args__ == tuple(inspect.signature(made).parameters)
    value = made(*range(len(names)))
    assert [getattr(value, name) for name in names] == list(range(len(names)))
    assert not hasattr(value, "__dict__")
    for same in (pickle.loads(pickle.dumps(value)), copy.copy(value), copy.deepcopy(value), dataclasses.replace(value)):
        assert same == value
        assert type(same) is made


def test_parts_that_are_set_by_hand() -> None:
    """Frozen itself leaves __init__ to its subclasses."""

    class Pair(Frozen):
        __slots__ = ("left", "right")
        left: int
        right: int

        def __init__(self, both: int) -> None:
            self._set(both, both)

    assert Pair(1) == Pair(1) != Pair(2)
    assert repr(Pair(1)) == "Pair(left=1, right=1)"
    with pytest.raises(AttributeError, match="Pair is immutable: left cannot be set"):
        Pair(1).left = 2
    with pytest.raises(ValueError, match="shorter"):
        Pair(1)._set(1)
