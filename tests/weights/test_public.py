"""Tests of `--init sam+clip`: timm's models, copied into our encoder, give the same features there.

The weights are random, so nothing is downloaded.
"""

import pytest
import timm
import torch
from golden import relative_error
from timm.layers import QuickGELU
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch import nn

from lightseek import LightSeekOCR, OCRConfig
from lightseek.model.config import ClipConfig, DecoderConfig, ProjectorConfig, SamConfig
from lightseek.weights.formula import formula_image
from lightseek.weights.public import CLIP, SAM, init_from_public, public_towers
from lightseek.weights.tensors import CheckpointError

TOLERANCE = 1e-4  # relative, float32
CONFIG = OCRConfig(  # the official encoder, narrower and shallower
    sam=SamConfig(width=24, layers=2, heads=2, global_blocks=(1,), neck=8),
    compressor=(8, 32),
    clip=ClipConfig(width=32, layers=2, heads=4),
    projector=ProjectorConfig("linear", 64, 8),
    decoder=DecoderConfig(width=8, layers=1, heads=2, dense_width=8, expert_width=4, vocabulary=32),
    image_token_id=31,
)


def small_sam(layers: int = 2) -> nn.Module:
    tower = VisionTransformerSAM(
        img_size=1024, embed_dim=24, depth=layers, num_heads=2, neck_chans=8, num_classes=0, use_rel_pos=True,
        window_size=14, global_attn_indexes=(1,),
    )  # fmt: skip
    return randomised(tower)


def small_clip() -> nn.Module:
    tower = VisionTransformer(
        img_size=224, patch_size=14, embed_dim=32, depth=2, num_heads=4, pre_norm=True, act_layer=QuickGELU,
        norm_layer=lambda width, **options: nn.LayerNorm(width, eps=1e-5, **options), num_classes=0,
    )  # fmt: skip
    return randomised(tower)


def randomised(tower: nn.Module) -> nn.Module:
    """Make every tensor random. timm starts some at 0 or 1, and those would be equal even if they were not copied."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in tower.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.1)
    return tower.eval()


@pytest.fixture
def model():
    return LightSeekOCR(CONFIG).eval()


@torch.no_grad()
def test_a_1024_page_through_sam_and_its_neck(model):
    tower = small_sam()
    assert init_from_public(model, sam=tower) == []
    pixels = formula_image("public", 1024)[None]
    assert relative_error(model.encoder.sam(pixels), tower.forward_features(pixels)) <= TOLERANCE


@torch.no_grad()
def test_the_same_tokens_through_clip(model):
    """There are 16 x 16 tokens, as many as CLIP has positions. timm's final norm is left out."""
    tower = small_clip()
    init_from_public(model, clip=tower)
    tokens = torch.randn(2, 32, 16, 16)
    with_class = torch.cat([tower.cls_token.expand(2, -1, -1), tokens.flatten(2).transpose(1, 2)], dim=1)
    expected = tower.blocks(tower.norm_pre(with_class + tower.pos_embed))
    assert relative_error(model.encoder.clip(tokens), expected) <= TOLERANCE


def test_all_of_both_halves_is_set_and_nothing_else(model):
    before = {name: p.clone() for name, p in model.named_parameters()}
    unused = init_from_public(model, small_sam(), small_clip())
    assert unused == ["clip.norm.weight", "clip.norm.bias"]
    for name, p in model.named_parameters():
        ours = name.startswith(("encoder.sam.", "encoder.clip."))
        assert torch.equal(p, before[name]) != ours, name


def test_the_towers_convert_to_the_models_dtype(model):
    model.bfloat16()
    init_from_public(model, sam=small_sam())
    assert model.encoder.sam.neck.conv2.weight.dtype == torch.bfloat16


def test_real_sizes_fit_the_official_preset():
    """The meta device has shapes but needs no memory. SAM ViT-B has 89.7 M parameters, and CLIP-L has 303 M."""
    with torch.device("meta"):
        model = LightSeekOCR(OCRConfig.preset("deepseek-ocr"))
        sam, clip = (timm.create_model(name, pretrained=False, num_classes=0) for name in (SAM, CLIP))
    assert init_from_public(model, sam, clip) == ["clip.norm.weight", "clip.norm.bias"]
    assert sum(p.numel() for p in model.encoder.sam.parameters()) == sum(p.numel() for p in sam.parameters())
    assert sum(p.numel() for p in model.encoder.clip.parameters()) == sum(p.numel() for p in clip.parameters()) - 2048


@pytest.mark.parametrize(("name", "activation"), [(SAM, nn.GELU), (CLIP, QuickGELU)])
def test_the_towers_have_the_encoders_activation(name, activation):
    """timm has another CLIP-L with the same shapes but exact GELU. It would load and give wrong features."""
    with torch.device("meta"):
        assert isinstance(timm.create_model(name, pretrained=False, num_classes=0).blocks[0].mlp.act, activation)


@pytest.mark.parametrize(
    ("towers", "complaint"),
    [
        ({"sam": small_sam(layers=3)}, r"timm's blocks.2.* has no place in encoder.sam"),
        ({"sam": small_sam(layers=1)}, r"no tensor for encoder.sam.blocks.1"),
        ({"sam": small_clip()}, r"timm's cls_token has no place in encoder.sam"),
        ({"sam": small_sam(), "clip": nn.Linear(2, 2)}, r"timm's weight has no place in encoder.clip"),
    ],
)
def test_towers_that_do_not_fit_change_nothing(model, towers, complaint):
    before = {name: p.clone() for name, p in model.named_parameters()}
    with pytest.raises(CheckpointError, match=complaint):
        init_from_public(model, **towers)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_other_sizes_are_named():
    model = LightSeekOCR(OCRConfig.preset("nano"))
    with pytest.raises(
        CheckpointError, match=r"has shape .* encoder.sam.position.weight .* fit the preset 'deepseek-oc"
    ):
        init_from_public(model, sam=small_sam())


def test_only_safetensors_are_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(timm, "create_model", lambda name, **options: asked.append((name, options)) or nn.Identity())
    public_towers()
    assert [name for name, _ in asked] == [SAM, CLIP]
    for _, options in asked:
        assert options["pretrained"] and options["pretrained_cfg_overlay"]["hf_hub_filename"] == "model.safetensors"


def test_offline_the_error_says_what_to_download(monkeypatch, tmp_path):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        CheckpointError, match=rf"{SAM}: timm could not (.|\n)*hf download timm/samvit_base_patch16.sa1b"
    ):
        public_towers(cache_dir=str(tmp_path))
