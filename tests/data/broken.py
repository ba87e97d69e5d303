"""Images that are whole, broken or hostile, as bytes."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

_ROWS, _COLUMNS = np.mgrid[:20, :24]
# Smooth, so that every kind shows it as it is.
PICTURE = np.stack([10 * _COLUMNS, 10 * _ROWS, 255 - 5 * (_COLUMNS + _ROWS)], axis=2).astype(np.uint8)


def encoded(mode: str, kind: str, **options: object) -> bytes:
    """The picture, 24 × 20."""
    file = io.BytesIO()
    Image.fromarray(PICTURE).convert(mode).save(file, kind, **options)
    return file.getvalue()


def zeros_png(width: int, height: int, *, whole: bool = True) -> bytes:
    """A black one-bit PNG, a thousandth of its pixels in bytes; not whole: its header, then nothing."""
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    pixels = bytes(height * (1 + -(-width // 8))) if whole else b""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in ((b"IHDR", header), (b"IDAT", zlib.compress(pixels)), (b"IEND", b""))
    )


def gif_header(width: int, height: int) -> bytes:
    """A GIF that declares a size, and one frame of it."""
    frame = b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x08\x02\x4c\x01\x00;"
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80, 0, 0) + bytes(6) + frame


def ppm_header(width: int, height: int) -> bytes:
    return f"P6 {width} {height} 255\n".encode() + bytes(300)


WHOLE = {
    "jpeg": encoded("RGB", "JPEG"),
    "progressive": encoded("RGB", "JPEG", progressive=True),
    "cmyk": encoded("CMYK", "JPEG"),
    "png": encoded("RGB", "PNG"),
    "palette": encoded("P", "PNG", transparency=bytes(range(200))),
    "webp": encoded("RGB", "WEBP"),
    "lossless": encoded("RGBA", "WEBP", lossless=True),
    "gif": encoded("P", "GIF"),
    "bmp": encoded("RGB", "BMP"),
    "ppm": encoded("RGB", "PPM"),
}


def mutated(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    """``data`` with some bits flipped, cut, or going on as ``other`` does."""
    kind = rng.integers(4)
    place = int(rng.integers(len(data)))
    if kind == 0:
        return data[:place]
    if kind == 1:
        return data[:place] + other[int(rng.integers(len(other))) :]
    # Half of the flips go into the first bytes, where the sizes are.
    reach = len(data) if kind == 2 else min(64, len(data))
    changed = bytearray(data)
    for flip in rng.integers(8 * reach, size=int(rng.integers(1, 9))).tolist():
        changed[flip // 8] ^= 1 << flip % 8
    return bytes(changed)
