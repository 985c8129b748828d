"""The official `config.json` schema, and that of transformers: what our sizes are called there.

Some sizes are constants in the reference code and have no key in the official schema. They get a key of our own, but
only if they differ from the official value. So an official file is written again unchanged.
"""

from typing import Any, Literal, NamedTuple, get_origin, get_type_hints

from lightseek.model.sizes import (
    BoxConfig,
    ClipConfig,
    ConfigError,
    DecoderConfig,
    HFDecoderConfig,
    ProjectorConfig,
    SamConfig,
)

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
DTYPE_KEYS = ("torch_dtype", "dtype")  # transformers 4.56 renamed the first to the second
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


def read_official(official: dict[str, Any], defaults: Any) -> dict[str, Any]:
    """Return the fields of `OCRConfig` that a file in the official schema asks for.

    `defaults` is an official `OCRConfig`. Raises ConfigError, which names the key that is missing, wrong or not
    supported.
    """
    reader = Reader(official)
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
    return dict(
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
        **reader.extras(MODEL_EXTRAS, defaults),
        dtype=_dtype(reader, language),
    )


def write_official(config: Any, defaults: Any) -> dict[str, Any]:
    """Return the contents of `config.json` for an `OCRConfig` of official boxes. `defaults` is the official model's."""
    sam, clip, decoder, projector = config.sam, config.clip, config.decoder, config.projector
    sizes = {
        **{theirs: getattr(decoder, ours) for ours, theirs in DECODER_KEYS.items()},
        **_differing(decoder, DecoderConfig(), DECODER_EXTRAS),
        "num_key_value_heads": decoder.heads,
        "bos_token_id": config.bos_token_id,
        "eos_token_id": config.eos_token_id,
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
        "language_config": {**language, "torch_dtype": config.dtype},
        "model_type": "deepseek_vl_v2",
        "projector_config": {
            "input_dim": projector.input_width,
            "model_type": "mlp_projector",
            "n_embed": projector.width,
            "projector_type": projector_kind,
            **({"depth": 2} if projector.kind == "mlp" else {}),
        },
        "tile_tag": "2D",
        "torch_dtype": config.dtype,
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
                    "downsample_channels": list(config.compressor),
                    "global_attn_indexes": list(sam.global_blocks),
                    "heads": sam.heads,
                    "layers": sam.layers,
                    "width": sam.width,
                    **_differing(sam, SamConfig(), SAM_EXTRAS),
                },
            },
        },
        **sizes,
        **_differing(config, defaults, MODEL_EXTRAS),
    }


def write_transformers(config: Any, sliding_window: int | None = None) -> dict[str, Any]:
    """Return the same sizes in the `unlimited_ocr` schema of transformers, whose classes read our checkpoints.

    Raises ConfigError for an MLP projector or a convolutional stem, which that schema lacks.
    """
    d = config.decoder
    if config.projector.kind != "linear":
        raise ConfigError("transformers' unlimited_ocr has a linear projector only")
    if config.sam.stem:
        raise ConfigError("transformers' unlimited_ocr has no convolutional stem: use sam with stem=()")
    return {
        "model_type": "unlimited_ocr",
        "architectures": ["UnlimitedOcrForConditionalGeneration"],
        "image_token_id": config.image_token_id,
        "text_config": {
            **config.to_dict()["language_config"],
            "sliding_window": sliding_window or d.max_positions,
            "rope_parameters": {"rope_type": "default", "rope_theta": d.rope_theta},
            "rms_norm_eps": d.norm_eps,
        },
        "vision_config": {
            "sam_config": {
                "hidden_size": config.sam.width,
                "num_hidden_layers": config.sam.layers,
                "num_attention_heads": config.sam.heads,
                "global_attn_indexes": list(config.sam.global_blocks),
                "downsample_channels": list(config.compressor),
                "mlp_dim": config.sam.width * config.sam.mlp_ratio,
                "output_channels": config.sam.neck,
                "patch_size": config.sam.patch,
                "window_size": config.sam.window,
                "image_size": config.sam.grid * config.sam.patch,
            },
            "encoder_config": {
                "hidden_size": config.clip.width,
                "num_hidden_layers": config.clip.layers,
                "num_attention_heads": config.clip.heads,
                "intermediate_size": config.clip.width * config.clip.mlp_ratio,
                "image_size": config.clip.image_size,
                "patch_size": config.clip.patch,
            },
        },
    }


def read_fields(values: dict[str, Any], whole: type) -> dict[str, Any]:
    """Return the fields of `whole`, the class `OCRConfig`, from a dictionary of our own names, as its `summary` writes.

    A model with a box that is not official is described so. Raises ConfigError, which names the field, if something is
    missing, unknown or of another type.
    """
    top = Reader(values)
    decoder = HFDecoderConfig if "transformers" in top.section("decoder").values else DecoderConfig
    sections = {"sam": SamConfig, "clip": ClipConfig, "projector": ProjectorConfig, "decoder": decoder}
    boxes = {}
    for axis in top.section("boxes").values if "boxes" in values else ():
        boxes[axis] = _sizes(top.section("boxes").section(axis), BoxConfig)
    found = {name: _sizes(top.section(name), kind) for name, kind in sections.items()}
    rest = {name: value for name, value in values.items() if name not in (*sections, "boxes")}
    return _typed(Reader(rest), whole) | found | {"boxes": boxes}


def _sizes(section: "Reader", kind: type) -> Any:
    try:
        return kind(**_typed(section, kind))
    except TypeError as error:  # a field is missing
        raise ConfigError(f"{section.path.rstrip('.')}: {str(error).partition(' ')[2]}") from None


def _typed(section: "Reader", kind: type) -> dict[str, Any]:
    """Return the values of a section, which must be fields of the dataclass `kind` and have the types of these."""
    hints, found = get_type_hints(kind), {}
    for key, value in section.values.items():
        if key not in hints:
            raise ConfigError(f"{section.path}{key:.80} is not a size of this model")
        hint = get_origin(hints[key]) or hints[key]
        if hint is tuple:  # JSON has lists in their place
            listed = Reader({key: list(value) if isinstance(value, tuple) else value}, section.path)
            found[key] = tuple(listed.value(key, list))
            continue
        json_type = JSON_TYPES[str if hint is Literal else hint]
        if not json_type.holds(value):
            raise ConfigError(f"{section.path}{key} must be {json_type.name}, got {value!r:.80}")
        found[key] = value
    return found


class JsonType(NamedTuple):
    """What JSON may have for a size, and how a message calls it."""

    name: str
    types: tuple[type, ...]

    def holds(self, value: Any) -> bool:
        """Whether `value` is of this type. Python counts true and false as integers, and JSON does not."""
        return isinstance(value, self.types) and (bool in self.types or not isinstance(value, bool))


JSON_TYPES: dict[type, JsonType] = {  # by the type of the size's default
    bool: JsonType("true or false", (bool,)),
    int: JsonType("an integer", (int,)),
    float: JsonType("a number", (int, float)),
    str: JsonType("a text", (str,)),
    dict: JsonType("an object", (dict,)),
    list: JsonType("a list", (list,)),
}


class Reader:
    """A section of the official JSON. Each of its errors names the key and the sections above it."""

    def __init__(self, values: Any, path: str = "") -> None:
        if not isinstance(values, dict):
            raise ConfigError(f"{path or 'the configuration'} must be an object, got {type(values).__name__}")
        self.values, self.path = values, path

    def section(self, key: str) -> "Reader":
        return Reader(self.value(key, dict), f"{self.path}{key}.")

    def value(self, key: str, kind: type) -> Any:
        if key not in self.values:
            raise ConfigError(f"{self.path}{key} is missing")
        found = self.values[key]
        if not isinstance(found, kind) or isinstance(found, bool):
            raise ConfigError(f"{self.path}{key} must be {kind.__name__}, got {found!r:.80}")
        if kind is list and not all(type(item) is int for item in found):
            raise ConfigError(f"{self.path}{key} must be a list of integers, got {found!r:.80}")
        return found

    def extras(self, names: dict[str, str], default: Any) -> dict[str, Any]:
        """Return the optional keys among `names` that are there. Each must have the JSON type of its default."""
        found = {}
        for ours, theirs in names.items():
            usual, value = getattr(default, ours), self.values.get(theirs)
            if value is None:
                continue
            if isinstance(usual, tuple):
                value = tuple(self.value(theirs, list))
            elif not JSON_TYPES[type(usual)].holds(value):
                raise ConfigError(f"{self.path}{theirs} must be {JSON_TYPES[type(usual)].name}, got {value!r:.80}")
            found[ours] = value
        return found


def _decoder(top: Reader, language: Reader) -> DecoderConfig:
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


def _dtype(*sections: Reader) -> str:
    """Return the dtype of the stored weights. Each section may have it under either key, and all must agree."""
    found = {
        section.path + key: section.value(key, str).removeprefix("torch.")
        for section in sections
        for key in DTYPE_KEYS
        if section.values.get(key) is not None
    }
    if len(set(found.values())) > 1:
        told = ", ".join(f"{key} is {dtype!r}" for key, dtype in found.items())
        raise ConfigError(f"{told}: they must agree")
    return next(iter(found.values()), "bfloat16")


def _refuse_unsupported(section: Reader) -> None:
    for key, supported in ONLY_VALUES.items():
        if section.values.get(key) not in (None, supported):
            raise ConfigError(f"{section.path}{key} is {section.values[key]!r:.80}: only {supported!r} is implemented")
    heads, key_heads = section.values.get("num_attention_heads"), section.values.get("num_key_value_heads")
    if key_heads not in (None, heads):
        raise ConfigError(f"{section.path}num_key_value_heads is {key_heads}: it must equal the {heads} query heads")


def _differing(ours: Any, official: Any, names: dict[str, str]) -> dict[str, Any]:
    pairs = {key: (getattr(ours, name), getattr(official, name)) for name, key in names.items()}
    return {key: list(a) if isinstance(a, tuple) else a for key, (a, b) in pairs.items() if a != b}
