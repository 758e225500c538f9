"""Small immutable values with named parts: equal, hashable, shown and pickled by their parts.

As frozen dataclasses, at a tenth of what making such a class costs when the package is imported: `dataclasses` imports
`inspect`, and compiles half a dozen functions for every class.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn, TypeVar

__all__ = ["Frozen", "dataclass"]

_F = TypeVar("_F", bound="Frozen")


def _restore(cls: type[_F], values: tuple[Any, ...]) -> _F:
    self = cls.__new__(cls)
    for name, value in zip(cls.__slots__, values, strict=True):
        object.__setattr__(self, name, value)
    return self


class Frozen:
    """The base. A subclass names its parts in `__slots__` and sets them, once, with `_set`."""

    __slots__: ClassVar[tuple[str, ...]] = ()

    def _set(self, *values: object) -> None:
        """Set every part, in the order of `__slots__`. For `__init__`."""
        for name, value in zip(type(self).__slots__, values, strict=True):
            object.__setattr__(self, name, value)

    def _values(self) -> tuple[Any, ...]:
        return tuple(getattr(self, name) for name in type(self).__slots__)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: {name} cannot be set")

    def __delattr__(self, name: str) -> NoReturn:
        raise AttributeError(f"{type(self).__name__} is immutable: {name} cannot be deleted")

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Frozen) and type(other) is type(self):
            return self._values() == other._values()
        return NotImplemented

    def __hash__(self) -> int:
        return hash((type(self), self._values()))

    def __repr__(self) -> str:
        parts = ", ".join(f"{name}={getattr(self, name)!r}" for name in type(self).__slots__)
        return f"{type(self).__name__}({parts})"

    def __reduce__(self) -> tuple[Any, ...]:
        # Not through __init__, which checks and converts, and may take something else than the parts.
        return _restore, (type(self), self._values())


if TYPE_CHECKING:
    from dataclasses import dataclass
else:

    class _MadeWhenRead:
        """An attribute of a class that is made when it is first looked for: by `make`, of the class."""

        def __init__(self, make):
            self.make = make

        def __set_name__(self, owner, name):
            self.name = name

        def __get__(self, instance, owner):
            # Of the class that `dataclass` made, which a subclass may be asking for through super().
            # From 3.13 on inspect binds it to the class itself.
            asking = instance if isinstance(instance, type) else owner
            made_by_dataclass = next(each for each in asking.__mro__ if "_defaults" in vars(each))
            made = self.make(self.name, made_by_dataclass)
            setattr(made_by_dataclass, self.name, made)
            return made.__get__(instance, owner) if callable(made) else made

    _INIT = """
def make({setters}):
    def __init__(self, {names}):
        {body}
    return __init__
"""

    def _make_init(_name, owner):
        """An __init__ of the parts, as `dataclasses` would compile it."""
        names = owner.__match_args__
        text = _INIT.format(
            setters=", ".join(f"set_{name}" for name in names),
            names=", ".join(names),
            body="; ".join(f"set_{name}(self, {name})" for name in names),
        )
        made = {}
        exec(text, sys.modules[owner.__module__].__dict__, made)
        init = made["make"](*(getattr(owner, name).__set__ for name in names))
        init.__defaults__ = tuple(owner._defaults.values())
        init.__annotations__ = {**owner.__annotations__, "return": None}
        init.__qualname__ = f"{owner.__qualname__}.__init__"
        return init

    def _made_by_dataclasses(name, owner):
        import dataclasses

        fields = [
            (
                part,
                owner.__annotations__[part],
                dataclasses.field(default=owner._defaults.get(part, dataclasses.MISSING)),
            )
            for part in owner.__match_args__
        ]
        return getattr(dataclasses.make_dataclass(owner.__name__, fields, frozen=True, slots=True), name)

    class _Dataclass(Frozen):
        """What a class becomes by `dataclass`. The functions of `dataclasses` take it for one of theirs."""

        __slots__ = ()
        _defaults: ClassVar = {}
        __init__ = _MadeWhenRead(_make_init)
        __dataclass_fields__ = _MadeWhenRead(_made_by_dataclasses)
        __dataclass_params__ = _MadeWhenRead(_made_by_dataclasses)

        def __setattr__(self, name, value):
            from dataclasses import FrozenInstanceError

            raise FrozenInstanceError(f"cannot assign to field {name!r}")

        def __delattr__(self, name):
            from dataclasses import FrozenInstanceError

            raise FrozenInstanceError(f"cannot delete field {name!r}")

        def __replace__(self, /, **changes):  # copy.replace()
            return type(self)(**{name: getattr(self, name) for name in self.__match_args__} | changes)

    def dataclass(*, frozen, slots):
        """`dataclasses.dataclass(frozen=True, slots=True)`, of a class without bases and with plain defaults."""
        assert frozen
        assert slots

        def make(cls):
            names = tuple(cls.__annotations__)
            body = {name: value for name, value in vars(cls).items() if name not in ("__dict__", "__weakref__")}
            body["_defaults"] = {name: body.pop(name) for name in names if name in body}
            body["__slots__"] = body["__match_args__"] = names
            return type(cls.__name__, (_Dataclass,), body)

        return make
