"""The kinds of noise on pages by name. This file loads no PyTorch."""

from lightseek.tools.registry import Registry

# Noise -> a function (image, random, settings) that returns an image of the same size. `page/noise.py` has them.
# `clean` is no noise. It tells an evaluation to leave out the noise of the training.
NOISES = Registry(
    "noise",
    {name: f"lightseek.page.noise:{name}" for name in ("blur", "speckle", "jpeg", "rotate", "clean")},
    settings=True,
    joined=True,
)
