"""The sizes of a very small model that still has every part, for tests of files and boxes."""

from lightseek import OCRConfig
from lightseek.model.config import ClipConfig, DecoderConfig, ProjectorConfig, SamConfig

SMALL = OCRConfig(
    sam=SamConfig(width=8, layers=2, heads=2, global_blocks=(1,), neck=4),
    compressor=(4, 8),
    clip=ClipConfig(width=8, layers=1, heads=2),
    projector=ProjectorConfig("linear", 16, 8),
    decoder=DecoderConfig(
        width=8, layers=2, heads=2, dense_width=12, experts=3, chosen=2, shared=1, expert_width=4, vocabulary=32
    ),
    image_token_id=31,
    dtype="float32",
)
