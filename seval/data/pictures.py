"""One image file, as people have them, to the form in which image sets store it; preparing and predicting share this.

Read are the formats of `FORMATS`, of files with several pictures the first. What EXIF says of the rotation is applied,
transparent parts are laid over white, 16 bits are cut to the upper 8, and color profiles are ignored.
"""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, UnidentifiedImageError

from seval.data.decode import LARGEST
from seval.text import short_line

#: Of Pillow's formats, those that it decodes by itself: some others start programs.
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
QUALITY = 95  # of a JPEG that is encoded here, without subsampling of color
FILTER = Image.Resampling.BILINEAR  # Pillow's, which averages where it shrinks; `decode` has the same
_LONGEST = 65_500  # pixels of a side of a JPEG
_ORIENTATION = 0x0112  # EXIF's tag
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def open_picture(content: bytes) -> Image.Image:
    """The picture in the bytes of a file as it should look, of mode L where it is gray, else RGB.

    Raises `ValueError` with a short reason where they are no whole picture of `FORMATS` of at most `LARGEST` pixels.
    """
    return examined(content)[0]


def examined(content: bytes) -> tuple[Image.Image, bool]:
    """`open_picture`, and whether the bytes are what an encoded set stores: a JPEG that `decode` shows as it looks."""
    with _decoded(content) as image:
        turn = _orientation(image)
        stored = image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB") and turn not in _TURN
        picture = _plain(image)
        return (picture.transpose(_TURN[turn]) if turn in _TURN else picture), stored


def pixels(picture: Image.Image, size: tuple[int, int] | None, channels: int) -> np.ndarray:
    """uint8 (channels, H, W) of a picture, resized to `size` (H, W) whatever its aspect ratio.

    Nothing is resized where `size` is None or already its own. Gray becomes three equal channels; color becomes one by
    the weights of ITU-R 601-2.
    """
    picture = picture.convert("L" if channels == 1 else "RGB")
    if size is not None and size != (picture.height, picture.width):
        picture = picture.resize((size[1], size[0]), FILTER)
    return np.array(picture).reshape(picture.height, picture.width, channels).transpose(2, 0, 1)


def as_jpeg(content: bytes) -> bytes:
    """The JPEG that an encoded set stores for a file: its own bytes where `decode` shows them as they should look.

    Otherwise (no JPEG, CMYK, rotated by EXIF) the picture is `encoded` again. Raises as `open_picture`.
    """
    picture, stored = examined(content)
    return content if stored else encoded(picture)


def encoded(picture: Image.Image) -> bytes:
    """A picture as JPEG of `QUALITY`. Raises `ValueError` where it has too many pixels a side for one."""
    if max(picture.size) > _LONGEST:
        raise ValueError(f"it has {picture.width} x {picture.height} pixels, but a JPEG at most {_LONGEST} a side")
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY, subsampling=0)
    return file.getvalue()


@contextmanager
def _decoded(content: bytes) -> Iterator[Image.Image]:
    """The picture as the file holds it; whatever fails, inside too, is a `ValueError`, but a lack of memory."""
    if not content:
        raise ValueError("it is empty")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about metadata, which is not used; size is checked here
            with Image.open(io.BytesIO(content), formats=FORMATS) as image:
                if image.width * image.height > LARGEST:
                    raise ValueError(f"it has {image.width} x {image.height} pixels, more than {LARGEST}")
                image.load()
                yield image
    except UnidentifiedImageError:
        raise ValueError(f"it is no picture of a known format ({', '.join(FORMATS)})") from None
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise anything
        raise ValueError(short_line(error)) from None


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # damaged metadata beside a sound picture
        return 1


def _plain(image: Image.Image) -> Image.Image:
    """The picture in L or RGB. Raises `ValueError` for pixels of more than 16 bits, whose range nobody knows."""
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError("its pixels have 32 bits; save it with 8 or 16")
    gray = image.mode in ("1", "L", "LA")
    if not image.has_transparency_data:
        plain = image.convert("L" if gray else "RGB")
    else:
        layers = image.convert("LA" if gray else "RGBA")
        plain = Image.new("L" if gray else "RGB", image.size, "white")
        plain.paste(layers.convert(plain.mode), mask=layers.getchannel("A"))
    if image.mode in ("P", "PA"):  # a palette can be of grays alone
        red, green, blue = plain.split()
        return red if red.tobytes() == green.tobytes() == blue.tobytes() else plain
    return plain
