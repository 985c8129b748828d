"""Makes pages harder to read: as out of focus, as from a poor sensor, as sent with a bad connection, as laid askew.

Each function takes an image, a random generator and its settings, and returns another image of the same size.
"""

from io import BytesIO
from zlib import crc32

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from lightseek.page.kinds import NOISES

RADIUS = 1.0  # pixels: the standard deviation of the blur
SPREAD = 32.0  # of 255: the standard deviation of the speckle
QUALITY = 20  # of 95: the quality of JPEG
ANGLE = 2.0  # degrees: the largest rotation, in both directions


def add_noise(image: Image.Image, kind: str, seed: int = 0) -> Image.Image:
    """Return `image` with noise of a kind. Equal arguments give equal pixels; each image has its own random draws.

    kind: one of `lightseek.page.kinds.NOISES`, perhaps with its settings, or several joined with +, which are applied
    in this order: `"blur:radius=2+rotate:degrees=3"`. Raises ValueError for any other kind or setting.
    """
    for part in NOISES.parts(kind):
        image = NOISES.call(part, image, np.random.default_rng([seed, crc32(image.tobytes())]))
    return image


def check_noise(kind: str) -> None:
    """Raise ValueError, as `add_noise` does, before there is a page."""
    NOISES.check(kind)
    add_noise(Image.new("RGB", (8, 8)), kind)


def clean(image: Image.Image, random: Generator) -> Image.Image:
    """Return the page without noise."""
    return image


def blur(image: Image.Image, random: Generator, radius: float | int = RADIUS) -> Image.Image:
    """Blur the page by a Gaussian with a standard deviation of `radius` pixels. Nothing in it is random."""
    return image.filter(ImageFilter.GaussianBlur(number("radius", radius, 0, 1000)))


def speckle(image: Image.Image, random: Generator, spread: float | int = SPREAD) -> Image.Image:
    """Add Gaussian noise to each pixel, the same to its three colours, with a standard deviation of `spread` of 255."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    noise = random.normal(0, number("spread", spread, 0, 255), size=(*pixels.shape[:2], 1))
    return Image.fromarray((pixels + noise).round().clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, random: Generator, quality: float | int = QUALITY) -> Image.Image:
    """Compress the page so much that artefacts appear around the letters. Nothing in it is random.

    `quality` is Pillow's: 1 is the worst and 95 the best.
    """
    file = BytesIO()
    image.convert("RGB").save(file, format="JPEG", quality=round(number("quality", quality, 1, 95)))
    return Image.open(file).convert("RGB")


def rotate(image: Image.Image, random: Generator, degrees: float | int = ANGLE) -> Image.Image:
    """Turn the page around its centre by a random angle of at most `degrees`, to the left or to the right.

    The corners that become free are white.
    """
    angle = random.uniform(-number("degrees", degrees, 0, 180), degrees)
    return image.convert("RGB").rotate(angle, Image.Resampling.BICUBIC, fillcolor="white")


def number(name: str, value: float | int, least: int, most: int) -> float | int:
    """Return the value of a setting. Raises ValueError unless it is a number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, float | int) or not least <= value <= most:
        raise ValueError(f"noise: {name} must be a number from {least} to {most}, got {value!r}")
    return value
