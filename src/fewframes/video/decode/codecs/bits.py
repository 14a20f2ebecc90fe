"""Read the bits of some bytes, the highest bit of each first."""

from __future__ import annotations


class Bits:
    """A reader of the bits of some bytes, the highest bit first."""

    def __init__(self, data: bytes) -> None:
        """Begin at the first bit of `data`."""
        self._value, self._left = int.from_bytes(data, "big"), 8 * len(data)

    def take(self, count: int) -> int:
        """Return the next `count` bits as a number. Raises EOFError where there are fewer."""
        self._left -= count
        if self._left < 0:
            raise EOFError
        return self._value >> self._left & (1 << count) - 1
