"""Makes pages harder to read: as out of focus, as from a poor sensor, as sent with a bad connection, as laid askew.

Each function takes an image and a random generator, and returns another image of the same size.
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

    kind: one of `lightseek.page.kinds.NOISES`. Raises ValueError for any other kind.
    """
    return NOISES.find(kind)(image, np.random.default_rng([seed, crc32(image.tobytes())]))


def blur(image: Image.Image, random: Generator) -> Image.Image:
    """Blur the page by a Gaussian. Nothing in it is random."""
    return image.filter(ImageFilter.GaussianBlur(RADIUS))


def speckle(image: Image.Image, random: Generator) -> Image.Image:
    """Add Gaussian noise to each pixel, the same to its three colours."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
    noise = random.normal(0, SPREAD, size=(*pixels.shape[:2], 1))
    return Image.fromarray((pixels + noise).round().clip(0, 255).astype(np.uint8))


def jpeg(image: Image.Image, random: Generator) -> Image.Image:
    """Compress the page so much that artefacts appear around the letters. Nothing in it is random."""
    file = BytesIO()
    image.convert("RGB").save(file, format="JPEG", quality=QUALITY)
    return Image.open(file).convert("RGB")


def rotate(image: Image.Image, random: Generator) -> Image.Image:
    """Turn the page by a random angle around its centre; the corners that become free are white."""
    angle = random.uniform(-ANGLE, ANGLE)
    return image.convert("RGB").rotate(angle, Image.Resampling.BICUBIC, fillcolor="white")
