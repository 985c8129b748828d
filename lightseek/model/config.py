"""All sizes of the model, as dataclasses that read and write the official `config.json`.

A preset is a value and not a code path: `OCRConfig.preset("deepseek-ocr")` and `OCRConfig.preset("nano")` build the
same classes. Some sizes are constants in the reference code and have no key in the official schema. They get a key of
our own, but only if they differ from the official value. So an official file is written again unchanged.
"""

import json
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal

DTYPES = ("bfloat16", "float16", "float32", "float64")


class ConfigError(ValueError):
    """Raised for a `config.json` that lacks a key or asks for something that this model does not have."""


@dataclass(frozen=True)
class SamConfig:
    """Sizes of SAM ViT-B (Kirillov et al. 2023), the window-attention half of the encoder, and of its neck."""

    width: int = 768
    layers: int = 12
    heads: int = 12
    global_blocks: tuple[int, ...] = (2, 5, 8, 11)  # these blocks attend globally, the others within windows
    patch: int = 16  # pixels
    window: int = 14  # patches
    grid: int = 64  # side of the stored position embedding, in patches: 1024 / 16
    mlp_ratio: int = 4
    neck: int = 256  # channels
    stem: tuple[int, ...] = ()  # channels after each halving of a convolutional stem; if empty, patch convolution


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of CLIP-L (Radford et al. 2021), the global-attention half of the encoder."""

    width: int = 1024
    layers: int = 24
    heads: int = 16
    image_size: int = 224  # pixels; the stored position embedding has image_size / patch patches per side
    patch: int = 14
    mlp_ratio: int = 4

    @property
    def grid(self) -> int:
        return self.image_size // self.patch


@dataclass(frozen=True)
class ProjectorConfig:
    """Sizes of the projector, from the channels of CLIP and SAM together to the decoder's width."""

    kind: Literal["linear", "mlp"] = "linear"
    input_width: int = 2048
    width: int = 1280


@dataclass(frozen=True)
class DecoderConfig:
    """Sizes of the mixture-of-experts decoder in the style of DeepSeek-V2 (3B-A570M in the paper)."""

    width: int = 1280
    layers: int = 12
    heads: int = 10
    dense_layers: int = 1  # this many first layers have one MLP instead of experts
    dense_width: int = 6848
    experts: int = 64
    chosen: int = 6  # experts per token
    shared: int = 2  # experts that every token uses, stored as one MLP
    expert_width: int = 896
    vocabulary: int = 129280
    max_positions: int = 8192
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    balance_alpha: float = 0.001  # weight of the sequence-wise balance loss in training

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    def dense_twin(self) -> "DecoderConfig":
        """Return sizes with one MLP in every layer. Its width is the mean width per layer that a token uses here."""
        active = (self.chosen + self.shared) * self.expert_width
        widths = [self.dense_width] * self.dense_layers + [active] * (self.layers - self.dense_layers)
        return replace(self, dense_layers=self.layers, dense_width=round(sum(widths) / len(widths)))

    def rules(self) -> dict[str, bool]:
        """Return the rules that the sizes must obey, and whether they do."""
        return {
            "decoder width must be a multiple of its heads": self.width % self.heads == 0,
            "decoder head width must be even (rotary embedding)": self.head_width % 2 == 0,
            "experts per token must not exceed the experts": self.chosen <= self.experts,
            "dense layers must not exceed the layers": self.dense_layers <= self.layers,
        }


@dataclass(frozen=True)
class HFDecoderConfig:
    """The facts that the other boxes need about a model of transformers that is the decoder."""

    name: str  # the folder or hub id that it came from
    transformers: dict[str, Any]  # the contents of its config.json
    width: int
    layers: int
    vocabulary: int
    max_positions: int
    balance_alpha: float = 0.0  # there is no routing

    def rules(self) -> dict[str, bool]:
        return {}


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

    def __post_init__(self) -> None:
        for box in (self.sam, self.clip, self.projector, self.decoder):
            for item in fields(box):
                size = getattr(box, item.name)
                may_be_zero = item.name in ("dense_layers", "balance_alpha")
                if isinstance(size, int | float) and (size < 0 or (size == 0 and not may_be_zero)):
                    raise ConfigError(f"{type(box).__name__}.{item.name} must be positive, got {size}")
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
            f"the dtype must be one of {', '.join(DTYPES)}": self.dtype in DTYPES,
            "the smallest letters must not be larger than the largest": 0
            < self.smallest_letters
            <= self.largest_letters,
        }
        for rule, holds in checks.items():
            if not holds:
                raise ConfigError(f"these sizes do not fit together: {rule}")

    @property
    def letters(self) -> tuple[int, int]:
        """The smallest and the largest font size, in pixels, that the model reads well."""
        return self.smallest_letters, self.largest_letters

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
            return cls.from_dict(_Reader(json.loads(path.read_text(encoding="utf-8"))).values)
        except FileNotFoundError:
            raise ConfigError(f"{path}: there is no such file; an official checkpoint has a config.json") from None
        except (UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ConfigError(f"{path}: not valid JSON ({error})") from None
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from None

    @classmethod
    def from_dict(cls, official: dict[str, Any]) -> "OCRConfig":
        """Read the official schema. Raises ConfigError, which names the key that is missing, wrong or not supported."""
        reader = _Reader(official)
        language, vision = reader.section("language_config"), reader.section("vision_config")
        towers = vision.section("width")
        sam, clip = towers.section("sam_vit_b"), towers.section("clip-l-14-224")
        projector = reader.section("projector_config")
        for section in (reader, language):
            _refuse_unsupported(section)

        kind = projector.value("projector_type", str)
        if kind not in PROJECTOR_KINDS:
            raise ConfigError(f"projector_config.projector_type is {kind!r}: only {sorted(PROJECTOR_KINDS)} are known")
        if kind != "linear" and projector.values.get("depth", 2) != 2:
            raise ConfigError(f"projector_config.depth is {projector.values['depth']!r}: an mlp has 2 layers here")
        channels = sam.value("downsample_channels", list)
        if len(channels) != 2:
            raise ConfigError(f"downsample_channels is {channels}: the compressor has exactly two convolutions")
        return cls(
            sam=SamConfig(
                width=sam.value("width", int),
                layers=sam.value("layers", int),
                heads=sam.value("heads", int),
                global_blocks=tuple(sam.value("global_attn_indexes", list)),
                **sam.extras(SAM_EXTRAS, SamConfig()),
            ),
            compressor=(channels[0], channels[1]),
            clip=ClipConfig(
                width=clip.value("width", int),
                layers=clip.value("layers", int),
                heads=clip.value("heads", int),
                image_size=clip.value("image_size", int),
                patch=clip.value("patch_size", int),
                **clip.extras(CLIP_EXTRAS, ClipConfig()),
            ),
            projector=ProjectorConfig(
                kind=PROJECTOR_KINDS[kind],
                input_width=projector.value("input_dim", int),
                width=projector.value("n_embed", int),
            ),
            decoder=_decoder(reader, language),
            **{name: language.value(name, int) for name in ("bos_token_id", "eos_token_id")},
            **reader.extras(MODEL_EXTRAS, cls()),
            dtype=reader.value("torch_dtype", str) if official.get("torch_dtype") else "bfloat16",
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of `config.json` in the official schema, which the reference code and vLLM read.

        The schema knows only the official decoder. With any other, this returns our own field names, as `summary` does.
        """
        if not isinstance(self.decoder, DecoderConfig):
            return self.summary()
        sam, clip, decoder, projector = self.sam, self.clip, self.decoder, self.projector
        sizes = {
            **{theirs: getattr(decoder, ours) for ours, theirs in DECODER_KEYS.items()},
            **_differing(decoder, DecoderConfig(), DECODER_EXTRAS),
            "num_key_value_heads": decoder.heads,
            "bos_token_id": self.bos_token_id,
            "eos_token_id": self.eos_token_id,
            **REFERENCE_SWITCHES,
        }
        projector_kind = {ours: theirs for theirs, ours in PROJECTOR_KINDS.items()}[projector.kind]
        language = {**sizes, "architectures": ["DeepseekV2ForCausalLM"], "auto_map": LANGUAGE_AUTO_MAP}
        return {
            "_name_or_path": "deepseek-ai/DeepSeek-OCR",
            "candidate_resolutions": [[1024, 1024]],
            "global_view_pos": "head",
            "architectures": ["DeepseekOCRForCausalLM"],
            "auto_map": AUTO_MAP,
            "language_config": {**language, "torch_dtype": self.dtype},
            "model_type": "deepseek_vl_v2",
            "projector_config": {
                "input_dim": projector.input_width,
                "model_type": "mlp_projector",
                "n_embed": projector.width,
                "projector_type": projector_kind,
                **({"depth": 2} if projector.kind == "mlp" else {}),
            },
            "tile_tag": "2D",
            "torch_dtype": self.dtype,
            "transformers_version": "4.46.3",
            "vision_config": {
                "image_size": 1024,
                "mlp_ratio": 3.7362,
                "model_name": "deeplip_b_l",
                "model_type": "vision",
                "width": {
                    "clip-l-14-224": {
                        "heads": clip.heads,
                        "image_size": clip.image_size,
                        "layers": clip.layers,
                        "patch_size": clip.patch,
                        "width": clip.width,
                        **_differing(clip, ClipConfig(), CLIP_EXTRAS),
                    },
                    "sam_vit_b": {
                        "downsample_channels": list(self.compressor),
                        "global_attn_indexes": list(sam.global_blocks),
                        "heads": sam.heads,
                        "layers": sam.layers,
                        "width": sam.width,
                        **_differing(sam, SamConfig(), SAM_EXTRAS),
                    },
                },
            },
            **sizes,
            **_differing(self, PRESETS["deepseek-ocr"], MODEL_EXTRAS),
        }

    def to_transformers(self, sliding_window: int | None = None) -> dict[str, Any]:
        """Return the same sizes in the `unlimited_ocr` schema of transformers, whose classes read our checkpoints.

        Raises ConfigError for an MLP projector or a convolutional stem, which that schema lacks.
        """
        d = self.decoder
        if self.projector.kind != "linear":
            raise ConfigError("transformers' unlimited_ocr has a linear projector only")
        if self.sam.stem:
            raise ConfigError("transformers' unlimited_ocr has no convolutional stem: use sam with stem=()")
        return {
            "model_type": "unlimited_ocr",
            "architectures": ["UnlimitedOcrForConditionalGeneration"],
            "image_token_id": self.image_token_id,
            "text_config": {
                **self.to_dict()["language_config"],
                "sliding_window": sliding_window or d.max_positions,
                "rope_parameters": {"rope_type": "default", "rope_theta": d.rope_theta},
                "rms_norm_eps": d.norm_eps,
            },
            "vision_config": {
                "sam_config": {
                    "hidden_size": self.sam.width,
                    "num_hidden_layers": self.sam.layers,
                    "num_attention_heads": self.sam.heads,
                    "global_attn_indexes": list(self.sam.global_blocks),
                    "downsample_channels": list(self.compressor),
                    "mlp_dim": self.sam.width * self.sam.mlp_ratio,
                    "output_channels": self.sam.neck,
                    "patch_size": self.sam.patch,
                    "window_size": self.sam.window,
                    "image_size": self.sam.grid * self.sam.patch,
                },
                "encoder_config": {
                    "hidden_size": self.clip.width,
                    "num_hidden_layers": self.clip.layers,
                    "num_attention_heads": self.clip.heads,
                    "intermediate_size": self.clip.width * self.clip.mlp_ratio,
                    "image_size": self.clip.image_size,
                    "patch_size": self.clip.patch,
                },
            },
        }

    def with_(self, **changes: Any) -> "OCRConfig":
        """Return a copy with some fields replaced: `config.with_(dtype="float32")`."""
        return replace(self, **changes)

    def summary(self) -> dict[str, Any]:
        """Return a plain nested dictionary with our own field names, for logs."""
        return asdict(self)


# Our name -> the official key, for sizes that are in every official file.
DECODER_KEYS = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "heads": "num_attention_heads",
    "dense_layers": "first_k_dense_replace",
    "dense_width": "intermediate_size",
    "experts": "n_routed_experts",
    "chosen": "num_experts_per_tok",
    "shared": "n_shared_experts",
    "expert_width": "moe_intermediate_size",
    "vocabulary": "vocab_size",
    "max_positions": "max_position_embeddings",
}
# Our name -> the key that we add for a constant of the reference code. It is written only if the value differs.
DECODER_EXTRAS = {"rope_theta": "rope_theta", "norm_eps": "rms_norm_eps", "balance_alpha": "aux_loss_alpha"}
SAM_EXTRAS = {
    "patch": "patch_size",
    "window": "window_size",
    "grid": "position_grid",
    "mlp_ratio": "mlp_ratio",
    "neck": "neck_channels",
    "stem": "stem_channels",
}
MODEL_EXTRAS = {
    "pad_token_id": "pad_token_id",
    "image_token_id": "image_token_id",
    "smallest_letters": "smallest_letters",
    "largest_letters": "largest_letters",
}
CLIP_EXTRAS = {"mlp_ratio": "mlp_ratio"}
PROJECTOR_KINDS: dict[str, Literal["linear", "mlp"]] = {"mlp": "mlp", "linear": "linear", "mlp_gelu": "mlp"}

# Options of the general DeepSeek-V2 code, each with the only value that this model uses.
REFERENCE_SWITCHES = {
    "kv_lora_rank": None,
    "lm_head": True,
    "n_group": 1,
    "q_lora_rank": None,
    "qk_nope_head_dim": 0,
    "qk_rope_head_dim": 0,
    "rm_head": False,
    "topk_group": 1,
    "topk_method": "greedy",
    "use_mla": False,
    "v_head_dim": 0,
}
# Options that would change the arithmetic, each with the only value that our code implements.
ONLY_VALUES = {
    "attention_bias": False,
    "hidden_act": "silu",
    "kv_lora_rank": None,
    "moe_layer_freq": 1,
    "n_group": 1,
    "norm_topk_prob": False,
    "q_lora_rank": None,
    "rope_scaling": None,
    "routed_scaling_factor": 1.0,
    "scoring_func": "softmax",
    "tie_word_embeddings": False,
    "topk_group": 1,
    "topk_method": "greedy",
    "use_mla": False,
}
AUTO_MAP = {
    "AutoConfig": "modeling_deepseekocr.DeepseekOCRConfig",
    "AutoModel": "modeling_deepseekocr.DeepseekOCRForCausalLM",
}
LANGUAGE_AUTO_MAP = {
    "AutoConfig": "configuration_deepseekv2.DeepseekV2Config",
    "AutoModel": "modeling_deepseek.DeepseekV2Model",
    "AutoModelForCausalLM": "modeling_deepseek.DeepseekV2ForCausalLM",
}


class _Reader:
    """A section of the official JSON. Each of its errors names the key and the sections above it."""

    def __init__(self, values: Any, path: str = "") -> None:
        if not isinstance(values, dict):
            raise ConfigError(f"{path or 'the configuration'} must be an object, got {type(values).__name__}")
        self.values, self.path = values, path

    def section(self, key: str) -> "_Reader":
        return _Reader(self.value(key, dict), f"{self.path}{key}.")

    def value(self, key: str, kind: type) -> Any:
        if key not in self.values:
            raise ConfigError(f"{self.path}{key} is missing")
        found = self.values[key]
        if not isinstance(found, kind) or isinstance(found, bool):
            raise ConfigError(f"{self.path}{key} must be {kind.__name__}, got {found!r}")
        if kind is list and not all(type(item) is int for item in found):
            raise ConfigError(f"{self.path}{key} must be a list of integers, got {found!r}")
        return found

    def extras(self, names: dict[str, str], default: Any) -> dict[str, Any]:
        """Return the optional keys of `names` that are present. Each must have the type that it has in `default`."""
        found = {}
        for ours, theirs in names.items():
            usual, value = getattr(default, ours), self.values.get(theirs)
            if value is None:
                continue
            if isinstance(usual, tuple):
                value = tuple(self.value(theirs, list))
            elif isinstance(value, bool) or not isinstance(value, int if isinstance(usual, int) else int | float):
                kind = "an integer" if isinstance(usual, int) else "a number"
                raise ConfigError(f"{self.path}{theirs} must be {kind}, got {value!r}")
            found[ours] = value
        return found


def _decoder(top: _Reader, language: _Reader) -> DecoderConfig:
    """Return the decoder's sizes, which the file holds twice and which must agree.

    The reference code reads the top level, and vLLM reads `language_config`.
    """
    decoder = DecoderConfig(
        **{ours: language.value(theirs, int) for ours, theirs in DECODER_KEYS.items()},
        **language.extras(DECODER_EXTRAS, DecoderConfig()),
    )
    for ours, theirs in (DECODER_KEYS | DECODER_EXTRAS).items():
        if top.values.get(theirs) not in (None, getattr(decoder, ours)):
            raise ConfigError(
                f"{theirs} is {top.values[theirs]!r} but language_config.{theirs} {getattr(decoder, ours)!r}: "
                "they must agree"
            )
    return decoder


def _refuse_unsupported(section: _Reader) -> None:
    for key, supported in ONLY_VALUES.items():
        if section.values.get(key) not in (None, supported):
            raise ConfigError(f"{section.path}{key} is {section.values[key]!r}: only {supported!r} is implemented")
    heads, key_heads = section.values.get("num_attention_heads"), section.values.get("num_key_value_heads")
    if key_heads not in (None, heads):
        raise ConfigError(f"{section.path}num_key_value_heads is {key_heads}: it must equal the {heads} query heads")


def _differing(ours: Any, official: Any, names: dict[str, str]) -> dict[str, Any]:
    pairs = {key: (getattr(ours, name), getattr(official, name)) for name, key in names.items()}
    return {key: list(a) if isinstance(a, tuple) else a for key, (a, b) in pairs.items() if a != b}


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
