"""Typing names that the oldest supported Python lacks, from one place.

Before 3.12 type checkers take them from typing_extensions, which they know whether it is installed or not. It is not
imported: that takes longer than most of this package. At run time stand-ins mean the same to whoever reads annotations.
"""

import sys
from typing import TYPE_CHECKING

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
    from typing import Self, Unpack, override
elif TYPE_CHECKING:
    from typing_extensions import Buffer, Self, Unpack, override
else:
    from typing import TypeVar

    Buffer = bytes | bytearray | memoryview

    def override(method):
        return method

    if sys.version_info >= (3, 11):
        from typing import Self, Unpack
    else:
        Self = TypeVar("Self")

        class Unpack:
            def __class_getitem__(cls, options):
                return options


__all__ = ["Buffer", "Self", "Unpack", "override"]
