"""Small immutable values with named parts: equal, hashable, shown and pickled by their parts.

As frozen dataclasses, at a tenth of what making such a class costs when the package is imported.
"""

from __future__ import annotations

from typing import Any, ClassVar, NoReturn, TypeVar

__all__ = ["Frozen"]

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
