"""The kinds of noise on pages by name. This file loads no PyTorch."""

from lightseek.tools.registry import Registry

# Noise -> a function (image, random) that returns another image of the same size. `page/noise.py` has them.
NOISES = Registry("noise", {name: f"lightseek.page.noise:{name}" for name in ("blur", "speckle", "jpeg", "rotate")})
