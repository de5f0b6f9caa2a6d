"""One image file to what image sets store, for every kind of file that people have."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from seval.data import pictures
from seval.data.decode import decode
from seval.data.pictures import as_jpeg, open_picture, pixels

RNG = np.random.default_rng(0)
GRAY = RNG.integers(256, size=(5, 7), dtype=np.uint8)
COLOR = RNG.integers(256, size=(5, 7, 3), dtype=np.uint8)
SMOOTH = np.linspace(0, 255, 48 * 32 * 3).reshape(48, 32, 3).astype(np.uint8)


def saved(array: np.ndarray | Image.Image, kind: str = "PNG", **options) -> bytes:
    file = io.BytesIO()
    (Image.fromarray(array) if isinstance(array, np.ndarray) else array).save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM", "WEBP"])
@pytest.mark.parametrize("array", [GRAY, COLOR], ids=["gray", "color"])
def test_formats_without_loss_keep_every_pixel(kind, array):
    picture = open_picture(saved(array, kind, **({"lossless": True} if kind == "WEBP" else {})))
    expected = np.atleast_3d(array).transpose(2, 0, 1)
    assert picture.mode == ("RGB" if array.ndim == 3 or kind == "WEBP" else "L")  # WebP knows no gray
    assert (pixels(picture, None, len(expected)) == expected).all()
    assert (pixels(picture, (5, 7), len(expected)) == expected).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_of_sixteen_bits_the_upper_eight_stay(kind):
    wide = (GRAY.astype(np.uint16) << 8) + 255
    picture = open_picture(saved(wide, kind))
    assert picture.mode == "L" and (np.asarray(picture) == GRAY).all()


def test_sixteen_bits_of_color_are_cut_alike():
    """Pillow cannot write such a PNG."""
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in (COLOR.astype(int) * 256 + 200).reshape(5, -1))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    assert (np.asarray(open_picture(png)) == COLOR).all()


@pytest.mark.parametrize("array", [GRAY, COLOR], ids=["gray", "color"])
def test_transparent_parts_are_laid_over_white(array):
    alpha = np.where(np.arange(7) < 3, 0, 255)[None].repeat(5, 0).astype(np.uint8)
    picture = open_picture(saved(np.dstack([array, alpha])))
    assert (np.asarray(picture)[:, :3] == 255).all() and (np.asarray(picture)[:, 3:] == array[:, 3:]).all()
    assert picture.mode == ("L" if array.ndim == 2 else "RGB")


def test_a_transparent_color_of_a_png_is_white():
    image = Image.fromarray(np.array([[10, 20]], np.uint8))
    assert np.asarray(open_picture(saved(image, transparency=20))).tolist() == [[10, 255]]


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_palettes_are_expanded_and_gray_where_they_are_gray(kind):
    picture = open_picture(saved(Image.fromarray(COLOR).quantize(16), kind))
    assert picture.mode == "RGB" and len(picture.getcolors()) <= 16
    few = Image.fromarray(GRAY // 16 * 16).convert("P")
    assert open_picture(saved(few, kind)).mode == "L"
    assert (np.asarray(open_picture(saved(few, kind))) == GRAY // 16 * 16).all()


def test_black_and_white_is_gray():
    picture = open_picture(saved(Image.fromarray(GRAY > 99)))
    assert picture.mode == "L" and ((np.asarray(picture) == 255) == (GRAY > 99)).all()


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG", "WEBP"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_rotation_is_applied(kind, turn):
    """Against the definition: where row 0 and column 0 of the file are in the picture that people see."""
    exif = Image.Exif()
    exif[0x0112] = turn
    array = SMOOTH[:, :, :1].repeat(3, 2)
    content = saved(array, kind, exif=exif, **({"quality": 100} if kind in ("JPEG", "WEBP") else {}))
    views = [array, array[:, ::-1], array[::-1, ::-1], array[::-1]]
    views += [view.transpose(1, 0, 2) for view in (array, array[::-1], array[::-1, ::-1], array[:, ::-1])]
    seen = np.asarray(open_picture(content), int)
    assert seen.shape == views[turn - 1].shape and abs(seen - views[turn - 1]).max() < 9
    if kind == "JPEG":
        assert (as_jpeg(content) == content) == (turn == 1)
        shown = decode(as_jpeg(content), 40).transpose(1, 2, 0).astype(int)
        assert abs(shown - np.asarray(open_picture(content).resize((40, 40), pictures.FILTER))).max() < 9


def test_damaged_metadata_does_not_hide_a_picture():
    content = saved(SMOOTH, "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert open_picture(content).size == (32, 48) and as_jpeg(content) == content


def test_cmyk_looks_as_it_did():
    content = saved(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=100)
    assert abs(np.asarray(open_picture(content), int) - SMOOTH).max() < 9
    again = as_jpeg(content)
    assert again != content and abs(decode(again, 32).astype(int) - decode(saved(SMOOTH, "JPEG"), 32)).max() < 12


def test_what_is_stored_as_jpeg_is_the_file_itself_or_nearly_the_picture():
    for plain in (saved(SMOOTH, "JPEG"), saved(SMOOTH[..., 0], "JPEG")):
        assert as_jpeg(plain) is plain
    again = as_jpeg(saved(SMOOTH))
    assert abs(np.asarray(open_picture(again), int) - SMOOTH).max() < 6 and as_jpeg(again) is again


def test_resizing_ignores_the_aspect_ratio_and_averages():
    picture = Image.fromarray(np.kron(GRAY, np.ones((4, 4), np.uint8)))
    assert pixels(picture, (8, 8), 1).shape == (1, 8, 8) and pixels(picture, (8, 6), 3).shape == (3, 8, 6)
    checks = Image.fromarray((np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8))
    assert abs(pixels(checks, (8, 8), 1).astype(int) - 127).max() < 4


def test_decoded_sets_and_arrays_are_resized_alike():
    content = saved(SMOOTH, "JPEG")
    assert (decode(content, 16) == pixels(open_picture(content), (16, 16), 3)).all()


def test_channels_are_made_as_asked():
    assert (pixels(Image.fromarray(GRAY), None, 3) == GRAY).all()
    expected = COLOR @ np.array([0.299, 0.587, 0.114])
    assert abs(pixels(Image.fromarray(COLOR), None, 1)[0] - expected).max() <= 1


UNREADABLE = {
    "empty": (b"", "empty"),
    "text": (b"hello, I am a text file", "no picture of a known format"),
    "a format that is not on the list": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "no picture of a known"),
    "half a JPEG": (saved(SMOOTH, "JPEG")[:-100], "truncated"),
    "half a PNG": (saved(COLOR)[:60], "."),
    "a wrong checksum": (saved(COLOR)[:45] + b"\0\0" + saved(COLOR)[47:], "."),
    "a header alone": (saved(SMOOTH, "JPEG")[:20], "."),
    "too many pixels": (saved(Image.new("1", (9000, 9000))), "9000 x 9000 pixels, more than"),
    "floats": (saved(GRAY.astype(np.float32), "TIFF"), "32 bits"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_unreadable_has_a_short_reason(name):
    content, reason = UNREADABLE[name]
    for work in (open_picture, as_jpeg):
        with pytest.raises(ValueError, match=reason) as caught:
            work(content)
        assert "\n" not in str(caught.value) and len(str(caught.value)) < 300 and "0x" not in str(caught.value)


def test_any_damage_is_a_picture_or_a_value_error():
    for whole in (saved(SMOOTH, "JPEG"), saved(COLOR), saved(COLOR, "TIFF"), saved(COLOR, "GIF"), saved(GRAY, "BMP")):
        for _ in range(40):
            content = bytearray(whole)
            for place in RNG.integers(len(whole), size=3):
                content[place] = RNG.integers(256)
            try:
                assert open_picture(bytes(content)).mode in ("L", "RGB")
            except ValueError:
                pass
