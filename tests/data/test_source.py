import io

import numpy as np
import pytest
from PIL import Image
from tests.conftest import png

from senet.data.source import decode, evenly_spaced, is_grey
from senet.errors import DataError


def encoded(mode: str, kind: str) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (5, 4), "white").save(file, kind)
    return file.getvalue()


@pytest.mark.parametrize(
    ("mode", "kind"), [("L", "PNG"), ("RGBA", "PNG"), ("P", "PNG"), ("CMYK", "JPEG"), ("RGB", "WEBP")]
)
def test_every_mode_becomes_grey_or_colour(mode: str, kind: str) -> None:
    assert decode(encoded(mode, kind), channels=3, where="x").mode == "RGB"
    assert decode(encoded(mode, kind), channels=1, where="x").mode == "L"


def test_16_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 40 * 40).astype(np.uint16).reshape(40, 40)
    file = io.BytesIO()
    Image.fromarray(ramp).save(file, "PNG")
    for channels in (1, 3):
        pixels = np.asarray(decode(file.getvalue(), channels=channels, where="x"), dtype=int)
        assert abs(pixels.reshape(40, 40, -1)[..., 0] - ramp // 256).max() <= 1
    floats = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(floats, "TIFF")
    with pytest.raises(DataError, match="mode F have no known range"):
        decode(floats.getvalue(), channels=1, where="x")


def test_a_message_names_no_object_in_memory() -> None:
    with pytest.raises(DataError, match=r"of no known kind") as caught:
        decode(b"nothing", channels=3, where="x.png")
    assert " at 0x" not in str(caught.value)


def test_grey_is_seen_in_the_header() -> None:
    assert is_grey(encoded("L", "PNG"))
    assert not is_grey(encoded("RGB", "PNG"))
    assert not is_grey(b"broken")


@pytest.mark.parametrize(("count", "most"), [(0, 5), (3, 5), (5, 5), (100, 7)])
def test_evenly_spaced(count: int, most: int) -> None:
    found = evenly_spaced(count, most)
    assert len(found) == len(set(found)) == min(count, most)
    assert all(0 <= index < count for index in found)
    assert not found or found[0] == 0


def test_pixels_are_exact() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decode(png(seed=3), channels=3, where="x")), pixels)


@pytest.mark.parametrize("data", [b"", b"not an image", png(1)[:-200], png(1)[:30]])
def test_a_broken_image_is_named(data: bytes) -> None:
    with pytest.raises(DataError, match=r"reading cats/3\.png: this is no whole image"):
        decode(data, channels=3, where="cats/3.png")
