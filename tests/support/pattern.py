"""Bodies whose every byte says where it belongs, so that a lost, doubled or misplaced piece shows."""

# A prime, so that no power-of-two buffer size lines up with the period.
PERIOD = 251

_BLOCK = bytes(range(PERIOD)) * 1044


def pattern(offset: int, size: int) -> bytes:
    """The bytes from `offset` to `offset + size` of the endless body whose byte i is i mod 251."""
    start = offset % PERIOD
    if start + size <= len(_BLOCK):
        return _BLOCK[start : start + size]
    repeats = (start + size) // PERIOD + 1
    return (_BLOCK[:PERIOD] * repeats)[start : start + size]
