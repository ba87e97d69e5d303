"""Damaged copies of a file, for readers that must survive them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

# What a number, a length or a bracket is likely to be tested with.
_AWKWARD = (
    b"\x00",
    b"\xff",
    b"\x7f",
    b"\x80",
    b"\xff" * 9 + b"\x01",
    b"\xff" * 11,
    b"{",
    b"}",
    b'"',
    b"[",
    b":",
)


def mutations(content: bytes, count: int, seed: int = 0) -> Iterator[bytes]:
    """``count`` copies of the content, each with one to three pieces changed."""
    rng = np.random.default_rng(seed)
    for _ in range(count):
        changed = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            start = int(rng.integers(0, len(changed) + 1))
            end = start + int(rng.integers(0, 9))
            match int(rng.integers(0, 6)):
                case 0:  # Bits turned over.
                    for index in range(start, min(end, len(changed))):
                        changed[index] ^= 1 << int(rng.integers(0, 8))
                case 1:  # Cut short.
                    del changed[start:]
                case 2:  # A piece is lost.
                    del changed[start:end]
                case 3:  # A piece stands twice.
                    changed[start:start] = changed[start:end]
                case 4:  # Something awkward is put in, or in place of what stood there.
                    piece = _AWKWARD[int(rng.integers(0, len(_AWKWARD)))]
                    changed[start : start + int(rng.integers(0, len(piece) + 1))] = piece
                case _:  # A piece of elsewhere.
                    other = int(rng.integers(0, len(content)))
                    changed[start:end] = content[other : other + int(rng.integers(0, 40))]
        yield bytes(changed)
