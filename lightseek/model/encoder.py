"""DeepEncoder: SAM sees details, the compressor cuts the tokens, CLIP sees the whole (paper section 3.2, figure 3).

    pixels b 3 s s -> sam b 256 g g -> compressor b 1024 r r -> clip b 1+t 1024 -> concat b t 2048

Here b is the batch and s the side of the image in pixels. Along a side, SAM sees g = s / 16 patches, and CLIP sees
r = s / 64. An image becomes t = r² vision tokens. Another compressor may give another r, and another global stage in
the place of CLIP may give another number of channels (`kinds.py`).
"""

from jaxtyping import Float
from torch import Tensor, nn

from lightseek.model.boxes import build_box
from lightseek.model.config import OCRConfig
from lightseek.model.sam import Sam


class DeepEncoder(nn.Module):
    """Turns square images into vision tokens. The side s must be a multiple of 64 pixels. Every part can learn."""

    def __init__(self, config: OCRConfig) -> None:
        super().__init__()
        self.sam = Sam(config.sam)
        self.compressor = build_box("compressor", config)
        self.set_global_stage(build_box("global_stage", config))

    def set_global_stage(self, stage: nn.Module) -> None:
        """Put a global stage in the place of CLIP, with the join that belongs to it."""
        self.clip, self.concat = stage, stage.join()

    def forward(self, pixels: Float[Tensor, "b 3 s s"]) -> Float[Tensor, "b t d"]:
        local = self.compressor(self.sam(pixels))  # b 1024 r r
        return self.concat(local, self.clip(local))
