import io
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageFile
from tests.conftest import png
from tests.data.broken import PICTURE, WHOLE, encoded, gif_header, mutated, ppm_header, zeros_png
from tests.programs import program

from senet.data import source as module
from senet.data.source import InMemory, Names, decode, evenly_spaced, existing_folder, is_grey
from senet.errors import DataError


@pytest.mark.parametrize(
    ("mode", "kind"),
    [
        ("1", "PNG"),
        ("L", "PNG"),
        ("LA", "PNG"),
        ("RGBA", "PNG"),
        ("P", "PNG"),
        ("CMYK", "JPEG"),
        ("RGB", "WEBP"),
        ("P", "GIF"),
    ],
)
def test_every_mode_becomes_grey_or_colour(mode: str, kind: str) -> None:
    data = encoded(mode, kind)
    assert decode(data, channels=3, where="x").mode == "RGB"
    grey = decode(data, channels=1, where="x")
    assert (grey.mode, grey.size) == ("L", (24, 20))


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_colours_are_those_of_the_picture(name: str) -> None:
    pixels = np.asarray(decode(WHOLE[name], channels=3, where="x"), dtype=int)
    # The palette is Pillow's own of 216 colours, and dithered.
    assert abs(pixels - PICTURE).mean() < (30 if name in ("palette", "gif") else 5)


def test_a_name_decides_nothing() -> None:
    assert decode(WHOLE["png"], channels=3, where="cat.jpg").size == (24, 20)


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


def test_kinds_that_run_programs_are_not_opened() -> None:
    postscript = io.BytesIO()
    Image.new("RGB", (5, 4)).save(postscript, "EPS")
    with pytest.raises(DataError, match=r"of no known kind.*Allowed: BMP, GIF, JPEG"):
        decode(postscript.getvalue(), channels=3, where="x.jpg")


def test_grey_is_seen_in_the_header() -> None:
    assert is_grey(encoded("L", "PNG"))
    assert not is_grey(encoded("RGB", "PNG"))
    assert not is_grey(b"broken")
    assert is_grey(zeros_png(10_000, 10_000, whole=False)), "without a warning"
    assert not is_grey(zeros_png(65_000, 65_000, whole=False))


@pytest.mark.parametrize(("count", "most"), [(0, 5), (3, 5), (5, 5), (100, 7)])
def test_evenly_spaced(count: int, most: int) -> None:
    found = evenly_spaced(count, most)
    assert len(found) == len(set(found)) == min(count, most)
    assert all(0 <= index < count for index in found)
    assert not found or found[0] == 0


def test_pixels_are_exact() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(decode(png(seed=3), channels=3, where="x")), pixels)


@pytest.mark.parametrize("data", [b"", b"not an image", png(1)[:-200], png(1)[:30], gif_header(0, 0)])
def test_a_broken_image_is_named(data: bytes) -> None:
    with pytest.raises(DataError, match=r"^reading cats/3\.png: ") as caught:
        decode(data, channels=3, where="cats/3.png")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("data", "pixels"),
    [
        (zeros_png(65_000, 65_000, whole=False), "4,225,000,000"),
        (zeros_png(13_000, 13_000, whole=False), "169,000,000"),
        (zeros_png(10_000, 10_000), "100,000,000"),
        (gif_header(65_535, 65_535), "4,294,836,225"),
        (gif_header(10_000, 10_000), "100,000,000"),
        (ppm_header(10_000_000, 10_000_000), "100,000,000,000,000"),
    ],
)
def test_a_bomb_is_refused_by_its_header(
    data: bytes, pixels: str, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("it was decoded"))
    words = f"^reading x: by its header the image has {pixels} pixels.*Allowed: 1 to 89,478,485 pixels"
    with pytest.raises(DataError, match=words):
        decode(data, channels=3, where="x")
    assert not recwarn.list


def test_the_limit_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    assert module.MOST_PIXELS == Image.MAX_IMAGE_PIXELS
    monkeypatch.setattr(module, "MOST_PIXELS", 25)
    assert decode(zeros_png(5, 5), channels=1, where="x").size == (5, 5)
    with pytest.raises(DataError, match="has 26 pixels, 2 x 13"):
        decode(zeros_png(2, 13), channels=1, where="x")


def test_a_long_thin_image_would_grow_when_its_short_edge_does() -> None:
    assert decode(zeros_png(1, 200), channels=1, where="x").size == (1, 200)
    with pytest.raises(DataError, match=r"201 pixels, 201 x 1.*no side above 200 times the other"):
        decode(zeros_png(201, 1), channels=1, where="x")


def test_many_pixels_in_a_small_file_are_a_bomb() -> None:
    with pytest.raises(DataError, match=r"has 25,000,000 pixels, 5000 x 5000, in [0-9,]+ bytes"):
        decode(zeros_png(5000, 5000), channels=1, where="x")
    assert decode(zeros_png(4096, 4096), channels=1, where="x").size == (4096, 4096)
    # The same many pixels are fine in a file that can hold them.
    grown = zeros_png(5000, 5000) + bytes(10_000)
    assert decode(grown, channels=1, where="x").size == (5000, 5000)


def test_a_bomb_costs_no_memory() -> None:
    # In a process of its own: what was the most in this one may have been more.
    code = """if True:
        import resource
        from tests.data.broken import gif_header, zeros_png, encoded
        from senet.data.source import decode
        from senet.errors import DataError
        bombs = zeros_png(10_000, 10_000), zeros_png(65_000, 65_000, whole=False), gif_header(65_535, 65_535)
        decode(encoded("RGB", "PNG"), channels=3, where="x")
        def most():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        before = most()
        for bomb in bombs:
            try:
                decode(bomb, channels=3, where="x")
            except DataError:
                continue
            raise SystemExit("decoded")
        print(most() - before)
    """
    root = Path(__file__).parent.parent.parent
    assert int(program("-c", code, cwd=root)) < 50_000, "KiB"


@pytest.mark.parametrize("many", [10_000, pytest.param(500_000, marks=pytest.mark.slow)])
def test_hostile_bytes_give_an_image_or_the_one_error(many: int) -> None:
    rng = np.random.default_rng(0)
    whole = list(WHOLE.values())
    decoded, said = 0, []
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for number in range(many):
            data = mutated(rng, whole[number % len(whole)], whole[int(rng.integers(len(whole)))])
            try:
                image = decode(data, channels=3, where=f"x{number}")
            except DataError as error:
                said.append(str(error).startswith(f"reading x{number}: "))
            else:
                decoded += 1
                assert image.mode == "RGB"
                assert 0 < image.width * image.height <= module.MOST_PIXELS
            is_grey(data)
    assert not warned
    assert all(said)
    assert 0.1 * many < decoded < 0.9 * many, "some of both"


def test_a_fault_without_words_has_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(DataError, match=r"no whole image \(MemoryError\)"):
        decode(WHOLE["png"], channels=3, where="x")


@given(parts=st.lists(st.lists(st.binary(min_size=1, max_size=9), max_size=6), min_size=1, max_size=4))
def test_names_are_kept_in_arrays(parts: list[list[bytes]]) -> None:
    texts = [[name.decode("utf-8", "surrogateescape") for name in part] for part in parts]
    names = Names.joined([Names.of(part) for part in texts])
    flat = [name for part in texts for name in part]
    assert [names[index] for index in range(len(names))] == flat
    assert names.text.nbytes + names.ends.nbytes == sum(map(len, (n for p in parts for n in p))) + 8 * len(
        flat
    )


def test_images_in_memory() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    source = InMemory(pixels, np.array([3, 1]))
    image, label = source.read(1)
    assert (len(source), image.mode, image.size, label) == (2, "RGB", (5, 4), 1)
    assert np.array_equal(np.asarray(image), pixels[1])


def test_the_first_folder_that_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "file").touch()
    for place, words in (
        ("imagse", f"^x: there is no folder {tmp_path}/imagse. Allowed: y. Did you mean 'images'"),
        ("imagse/a/b", f"there is no folder {tmp_path}/imagse. Allowed"),
        ("file", "file is no folder"),
        ("file/a", "file is no folder"),
    ):
        with pytest.raises(DataError, match=words):
            existing_folder("x", str(tmp_path / place), "y")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert existing_folder("x", "~/images", "y") == tmp_path / "images"
