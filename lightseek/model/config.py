"""All sizes of the model: `OCRConfig` joins those of the boxes, and `PRESETS` are the models that we know.

A preset is a value and not a code path: `OCRConfig.preset("deepseek-ocr")` and `OCRConfig.preset("nano")` build the
same classes.
"""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from lightseek.model.config_json import Reader, read_fields, read_official, write_official, write_transformers
from lightseek.model.kinds import BOXES, LAYOUTS
from lightseek.model.sizes import (
    PATCH,
    BoxConfig,
    ClipConfig,
    ConfigError,
    DecoderConfig,
    HFDecoderConfig,
    ProjectorConfig,
    SamConfig,
)
from lightseek.page.modes import Arithmetic
from lightseek.tools.json_files import JsonError, read_json

DTYPES = ("bfloat16", "float16", "float32", "float64")
# No known model is near these bounds. They keep a wrong file from filling the memory before it is found to be wrong.
LARGEST_WIDTH = 2**17
LARGEST: dict[str, float] = {
    "layers": 1000,
    "dense_layers": 1000,
    "global_blocks": 1000,
    "heads": 1024,
    "experts": 4096,
    "chosen": 4096,
    "shared": 4096,
    "image_size": 2**14,
    "patch": 2**10,
    "window": 2**10,
    "grid": 2**10,
    "mlp_ratio": 64,
    "dense_width": 2**20,
    "expert_width": 2**20,
    "vocabulary": 2**24,
    "max_positions": 2**31,
    "rope_theta": 1e12,
    "norm_eps": 1,
    "balance_alpha": 1000,
}
STORED = ("", "int8", "int4")  # what `quantized` may be
OFFICIAL_PROJECTORS = ("linear", "mlp")  # the kinds that the official schema can name


@dataclass(frozen=True)
class OCRConfig:
    """All sizes of the model. `from_dict` and `to_dict` read and write the official `config.json` schema.

    >>> OCRConfig.preset("deepseek-ocr").decoder.experts
    64
    """

    sam: SamConfig = field(default_factory=SamConfig)
    compressor: tuple[int, int] = (512, 1024)  # channels after each stride-2 convolution
    clip: ClipConfig = field(default_factory=ClipConfig)
    projector: ProjectorConfig = field(default_factory=ProjectorConfig)
    decoder: DecoderConfig | HFDecoderConfig = field(default_factory=DecoderConfig)
    bos_token_id: int = 0
    eos_token_id: int = 1
    pad_token_id: int = 2
    image_token_id: int = 128815
    dtype: str = "bfloat16"  # of the stored weights
    smallest_letters: int = 12  # a text is drawn in font sizes that the weights can read, in pixels
    largest_letters: int = 32
    boxes: dict[str, BoxConfig] = field(default_factory=dict)  # the boxes that are not official, by their axis
    quantized: str = ""  # the quantizer of the stored weights, such as int8; empty if they are whole

    def __post_init__(self) -> None:
        for box in (self.sam, self.clip, self.projector, self.decoder):
            for item in fields(box):
                check_size(f"{type(box).__name__}.{item.name}", getattr(box, item.name))
        for name in ("compressor", "largest_letters"):
            check_size(f"OCRConfig.{name}", getattr(self, name))
        tokens = [self.bos_token_id, self.eos_token_id, self.pad_token_id]
        if isinstance(self.decoder, DecoderConfig):  # for other decoders the image token is not in the vocabulary
            tokens.append(self.image_token_id)
        checks = {
            "SAM width must be a multiple of its heads": self.sam.width % self.sam.heads == 0,
            "SAM patches must be 16 pixels, or a mode's token count would not hold": self.sam.patch == 16,
            "a stem must halve four times, into 16-pixel patches": len(self.sam.stem) in (0, 4)
            and min(self.sam.stem, default=1) > 0,
            "CLIP width must be a multiple of its heads": self.clip.width % self.clip.heads == 0,
            "CLIP's image size must hold at least one patch": self.clip.grid > 0,
            **self.decoder.rules(),
            "the compressor's channels must be positive": min(self.compressor) > 0,
            "the compressor's last channels must equal CLIP's width": self.compressor[-1] == self.clip.width,
            "projector input must be CLIP width + compressor channels": self.projector.input_width
            == self.clip.width + self.compressor[-1],
            "projector output must be the decoder's width": self.projector.width == self.decoder.width,
            "global attention blocks must exist": all(0 <= i < self.sam.layers for i in self.sam.global_blocks),
            "special tokens must be in the vocabulary": min(tokens) >= 0 and max(tokens) < self.decoder.vocabulary,
            "quantized weights are stored as int8 or int4": self.quantized in STORED,
            f"the dtype must be one of {', '.join(DTYPES)}": self.dtype in DTYPES,
            "the smallest letters must not be larger than the largest": 0
            < self.smallest_letters
            <= self.largest_letters,
        }
        for rule, holds in checks.items():
            if not holds:
                raise ConfigError(f"these sizes do not fit together: {rule}")
        for axis, box in self.boxes.items():
            check_box(axis, box)

    @property
    def official(self) -> bool:
        """Whether every box is of an official kind and whole, so that the official layout can hold the model."""
        return not self.boxes and not self.quantized and isinstance(self.decoder, DecoderConfig)

    @property
    def factor(self) -> int:
        """How many patches along a side become one vision token: 4, so that the compressor makes 16 times fewer."""
        return self.box("compressor").settings.get("factor", 4)

    @property
    def token_side(self) -> int:
        """The pixels along a side of one vision token: 64 for the official compressor."""
        return PATCH * self.factor

    @property
    def arithmetic(self) -> Arithmetic:
        """How many tokens and sequence positions a page has for this model."""
        layout = LAYOUTS.find(self.box("layout").kind)
        return Arithmetic(self.token_side, layout.newlines, layout.separators)

    @property
    def letters(self) -> tuple[int, int]:
        """The smallest and the largest font size, in pixels, that the model reads well."""
        return self.smallest_letters, self.largest_letters

    def box(self, axis: str) -> BoxConfig:
        """Return the kind and the settings of the box at `axis`, a name in `kinds.BOXES`."""
        official = self.projector.kind if axis == "projector" else BOXES[axis].official
        return self.boxes.get(axis, BoxConfig(official))

    def with_box(self, axis: str, kind: str, settings: dict[str, Any] | None = None) -> "OCRConfig":
        """Return a copy with another kind of box at `axis`. Raises ConfigError for an unknown kind or axis."""
        boxes = {name: box for name, box in self.boxes.items() if name != axis}
        if axis in BOXES and kind == BOXES[axis].official and settings == BOXES[axis].settings:
            settings = None
        if axis == "projector" and kind in OFFICIAL_PROJECTORS and not settings:
            return replace(self, boxes=boxes, projector=replace(self.projector, kind=kind))
        if axis not in BOXES or kind != BOXES[axis].official or settings:
            boxes[axis] = BoxConfig(kind, dict(settings or {}))
        return replace(self, boxes=boxes)

    @classmethod
    def preset(cls, name: str) -> "OCRConfig":
        """Return the sizes of `"deepseek-ocr"`, the official model of 3.3 B parameters, or of `"nano"`, a small one.

        Both have the same boxes; nano has a few million parameters. Raises ConfigError for any other name.
        """
        if name not in PRESETS:
            raise ConfigError(f"unknown preset {name!r}: choose one of {', '.join(PRESETS)}")
        return PRESETS[name]

    @classmethod
    def from_json(cls, path: str | Path) -> "OCRConfig":
        """Read a `config.json`. Raises ConfigError, which names the file, if it is missing or wrong."""
        path = Path(path)
        try:
            return cls.from_dict(Reader(read_json(path)).values)
        except FileNotFoundError:
            raise ConfigError(f"{path}: there is no such file; an official checkpoint has a config.json") from None
        except JsonError as error:
            raise ConfigError(str(error)) from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "OCRConfig":
        """Read what `to_dict` writes: the official schema or, for boxes that are not official, our own names.

        Raises ConfigError, which names the key that is missing, wrong or not supported.
        """
        if "sam" in values:
            return cls(**read_fields(values, cls))
        return cls(**read_official(values, cls()))

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of `config.json` in the official schema, which the reference code and vLLM read.

        The schema knows only the official boxes. With any other, this returns our own field names, as `summary` does.
        """
        return write_official(self, OCRConfig()) if self.official else self.summary()

    def to_transformers(self, sliding_window: int | None = None) -> dict[str, Any]:
        """Return the same sizes in the `unlimited_ocr` schema of transformers, whose classes read our checkpoints.

        Raises ConfigError for a box that the schema lacks: an MLP projector, a stem, a box that is not official.
        """
        if not self.official:
            raise ConfigError("transformers' unlimited_ocr has the official boxes only")
        return write_transformers(self, sliding_window)

    def with_(self, **changes: Any) -> "OCRConfig":
        """Return a copy with some fields replaced: `config.with_(dtype="float32")`."""
        return replace(self, **changes)

    def summary(self) -> dict[str, Any]:
        """Return a plain nested dictionary with our own field names, for logs."""
        return asdict(self)


def check_size(name: str, size: Any) -> None:
    """Raise ConfigError for a size that is not positive, not finite or too large to build. Others than numbers pass."""
    field_name = name.rpartition(".")[2]
    most = LARGEST.get(field_name, LARGEST_WIDTH)
    may_be_zero = field_name in ("dense_layers", "balance_alpha", "global_blocks")
    for number in size if isinstance(size, tuple) else (size,):
        if not isinstance(number, int | float):
            continue
        if not (number > 0 or (number == 0 and may_be_zero)):
            raise ConfigError(f"{name} must be positive, got {number}")
        if number > most:
            raise ConfigError(f"{name} must be at most {most:,}, got {number}")


def check_box(axis: str, box: BoxConfig) -> None:
    """Raise ConfigError unless there is such a kind of box and its settings can be written as JSON."""
    if axis not in BOXES:
        raise ConfigError(f"there is no box to choose at {axis!r}, only at {', '.join(BOXES)}")
    try:
        BOXES[axis].kinds.check(box.kind)
        json.dumps(box.settings)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{axis}: {error}") from None
    factor = box.settings.get("factor", 4)
    if axis == "compressor" and (isinstance(factor, bool) or not isinstance(factor, int) or factor < 1):
        raise ConfigError(f"compressor: factor must be a whole number of patches along a side, got {factor!r}")


PRESETS: dict[str, OCRConfig] = {}
PRESETS["deepseek-ocr"] = OCRConfig()
PRESETS["nano"] = OCRConfig(
    sam=SamConfig(width=128, layers=4, heads=2, global_blocks=(3,), window=8, neck=64, stem=(16, 32, 64, 128)),
    compressor=(128, 256),
    clip=ClipConfig(width=256, layers=3, heads=4),
    projector=ProjectorConfig(input_width=512, width=256),
    decoder=DecoderConfig(
        width=256,
        layers=4,
        heads=4,
        dense_width=768,
        experts=8,
        chosen=2,
        shared=3,
        expert_width=192,
        vocabulary=349,
        max_positions=8192,  # one token is one character: a 512-pixel page of 9-pixel letters has 4000
    ),
    image_token_id=3,
    dtype="float32",
    smallest_letters=44,  # measured: docs/nano.md
    largest_letters=64,
)
