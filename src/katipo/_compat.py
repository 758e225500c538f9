"""Typing names that the oldest supported Python lacks, from one place."""

import sys

if sys.version_info >= (3, 12):
    from collections.abc import Buffer
    from typing import Self, Unpack, override
else:
    from typing_extensions import Buffer, Self, Unpack, override

__all__ = ["Buffer", "Self", "Unpack", "override"]
