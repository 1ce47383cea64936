"""Random changes of training images, functions of (seed, step, place in the global batch) alone.

So no number of ranks or workers, and no other change, alters what is drawn for an image.
"""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageEnhance, ImageFilter

from plsc.artifacts.index import Value
from plsc.train.loader.keyed import uniforms

__all__ = ["Augment", "augment", "draw"]

_DRAWS = 2  # the part of the key that keeps these apart from the order's
_FLIP, _SHIFT_Y, _SHIFT_X, _AREA, _ASPECT, _TOP, _LEFT = range(7)
_BRIGHTNESS, _CONTRAST, _SATURATION, _BLUR, _RADIUS, _GREY, _COUNT = range(7, 14)
_LOG_ASPECT = math.log(4 / 3)


class Augment(Value):
    """The settings of ``train.augment``; see there."""

    flip: bool = False
    shift: int = 0
    crop: float = 1.0
    color: float = 0.0
    blur: float = 0.0
    blur_radius: float = 1.0
    grey: float = 0.0


def draw(
    settings: Augment, places: npt.NDArray[np.int64], key: tuple[int, int]
) -> tuple[list[bool], list[list[float]]]:
    """Return what happens to the images at ``places`` of a global batch.

    Args:
        settings: What may happen.
        places: int64 [n], places in the global batch.
        key: Seed and step.

    Returns:
        Whether each is mirrored, and the numbers for ``augment``, one list each; none at all when
        nothing else may happen.
    """
    draws = uniforms(places, _COUNT, (_DRAWS, *key))
    mirrored = (draws[:, _FLIP] < 0.5).tolist() if settings.flip else [False] * len(places)
    only_flips = settings == Augment(flip=settings.flip, blur_radius=settings.blur_radius)
    return mirrored, [] if only_flips else draws.tolist()


def augment(settings: Augment, pixels: npt.NDArray[np.uint8], draws: list[float]) -> None:
    """Change the image ``pixels``, uint8 [S, S, 3], in place as ``draws`` say."""
    if settings.shift:
        span = 2 * settings.shift + 1
        _shift(
            pixels,
            math.floor(draws[_SHIFT_Y] * span) - settings.shift,
            math.floor(draws[_SHIFT_X] * span) - settings.shift,
        )
    is_blurred, is_grey = draws[_BLUR] < settings.blur, draws[_GREY] < settings.grey
    if settings.crop == 1 and not settings.color and not is_blurred and not is_grey:
        return
    image = Image.fromarray(pixels)
    if settings.crop < 1:
        image = _crop(image, settings.crop, draws)
    if settings.color:
        image = _color(image, settings.color, draws)
    if is_blurred:
        radius = settings.blur_radius * draws[_RADIUS]
        image = image.filter(ImageFilter.GaussianBlur(radius))
    if is_grey:
        image = image.convert("L").convert("RGB")
    pixels[:] = np.asarray(image)


def _shift(pixels: npt.NDArray[np.uint8], down: int, right: int) -> None:
    """Move the image, and repeat its edges where nothing moves in."""
    size = len(pixels)
    moved = pixels[np.clip(np.arange(size) - down, 0, size - 1)]
    if right > 0:
        pixels[:, right:] = moved[:, :-right]
        pixels[:, :right] = moved[:, :1]
    elif right < 0:
        pixels[:, :right] = moved[:, -right:]
        pixels[:, right:] = moved[:, -1:]
    else:
        pixels[:] = moved


def _crop(image: Image.Image, smallest: float, draws: list[float]) -> Image.Image:
    """Return a random part of the image, enlarged to its size.

    The part's area is a uniform fraction from ``smallest`` on, its width over height lies between
    3/4 and 4/3 (log-uniform), as in Inception's "random resized crop".
    """
    size = image.size[0]
    area = smallest + (1 - smallest) * draws[_AREA]
    aspect = math.exp(_LOG_ASPECT * (2 * draws[_ASPECT] - 1))
    width = min(1.0, math.sqrt(area * aspect)) * size
    height = min(1.0, math.sqrt(area / aspect)) * size
    left, top = draws[_LEFT] * (size - width), draws[_TOP] * (size - height)
    box = (left, top, min(left + width, size), min(top + height, size))
    return image.resize(image.size, Image.Resampling.BILINEAR, box=box)


def _color(image: Image.Image, strength: float, draws: list[float]) -> Image.Image:
    for kind, number in (
        (ImageEnhance.Brightness, _BRIGHTNESS),
        (ImageEnhance.Contrast, _CONTRAST),
        (ImageEnhance.Color, _SATURATION),
    ):
        image = kind(image).enhance(1 + strength * (2 * draws[number] - 1))
    return image
