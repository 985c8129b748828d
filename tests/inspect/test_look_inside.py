"""Looking inside: places on the page, attention, the lens, confidence, interventions, attribution and pictures."""

import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from lightseek.__main__ import main
from lightseek.inspect.attention import attention_in_encoder, attention_on_page
from lightseek.inspect.interventions import attribution, find_stage, intervene, patching, record, replace
from lightseek.inspect.logits import confidence, lens
from lightseek.inspect.pictures import experts_of, experts_picture, stage_picture
from lightseek.inspect.places import image_places
from lightseek.inspect.reading import observe
from lightseek.page.modes import MODES
from lightseek.page.views import count, page_views
from lightseek.weights.swap import swap_decoder
from tests.tiny_models import gpt2_folder, qwen3_folder, small_model

TEXT = "Seven red boats."


def drawn(size=(600, 400), text="A7") -> Image.Image:
    picture = Image.new("RGB", size, "white")
    ImageDraw.Draw(picture).text((size[0] // 3, size[1] // 4), text, "black", font_size=size[1] // 3)
    return picture


@pytest.fixture(scope="module")
def model():
    return small_model()


@pytest.fixture(scope="module")
def reading(model):
    return observe(model, drawn(), mode="tiny", text=TEXT)


@pytest.fixture(scope="module")
def tiled(model):
    return observe(model, drawn((700, 1300)), mode="gundam", text="ab")


def test_every_position_of_an_image_has_a_place(reading, tiled):
    for found in (reading, tiled):
        assert len(found.places) == len(found.image_positions) == count(found.views).positions
    kinds = [place.kind for place in tiled.places]
    assert (kinds.count("token"), kinds.count("newline"), kinds.count("separator")) == tuple(count(tiled.views))
    assert tiled.places[0].part == "tiles"
    assert tiled.places[-1].part == "whole"


@given(st.sampled_from(list(MODES)), st.integers(40, 3000), st.integers(40, 3000))
@settings(max_examples=40, deadline=None)
def test_the_tokens_of_a_picture_cover_the_page_once(mode, width, height):
    if max(width, height) > 40 * min(width, height):
        return
    views = page_views(Image.new("L", (width, height)), mode)
    found = image_places(views, mode, (width, height))
    for part in {place.part for place in found}:
        boxes = [place.box for place in found if place.part == part and place.box]
        area = sum((right - left) * (bottom - top) for left, top, right, bottom in boxes)
        assert area == pytest.approx(width * height, rel=0.01)


def test_a_mark_on_a_padded_page_is_in_the_box_of_its_token(model):
    """A black square in the upper right corner darkens the pixels of the token whose box has it."""
    picture = Image.new("RGB", (400, 1000), "white")
    picture.paste("black", (350, 0, 400, 50))
    views = page_views(picture, "base")
    where = image_places(views, "base", picture.size)
    (token,) = [p for p in where if p.box and p.box[0] <= 375 < p.box[2] and p.box[1] <= 10 < p.box[3]]
    pixels = views.global_view[0, token.row * 64 : token.row * 64 + 64, token.column * 64 : token.column * 64 + 64]
    assert pixels.min() < -0.9
    assert where[0].box is None  # the left edge is padding


def test_attention_of_a_token_sums_to_one_and_is_a_softmax_by_hand(model, reading):
    found = attention_on_page(reading, layer=0, head=1)
    assert found.weights.shape == (len(reading.written), reading.input_ids.shape[1])
    torch.testing.assert_close(found.weights.sum(1), torch.ones(len(reading.written)))

    layer, attend = model.decoder.layers[0], model.decoder.layers[0].attention
    with torch.no_grad():
        x = model.embed(reading.input_ids, [[reading.views]])
        rotation = model.decoder.rotary(torch.arange(x.shape[1])[None], x.dtype)
        normed = layer.attention_norm(x)
        from lightseek.model.decoder import rotate

        width = x.shape[-1] // attend.heads
        q, k = (
            rotate(project(normed).view(1, -1, attend.heads, width).transpose(1, 2), rotation)
            for project in (attend.q_proj, attend.k_proj)
        )
        logits = (q[0, 1] @ k[0, 1].T) / math.sqrt(width)
        logits = logits.masked_fill(torch.ones_like(logits, dtype=torch.bool).triu(1), -math.inf)
        by_hand = torch.exp(logits) / torch.exp(logits).sum(-1, keepdim=True)
    torch.testing.assert_close(found.weights, by_hand[reading.predicting])


@pytest.mark.parametrize(("layer", "head"), [("mean", "mean"), (2, "mean"), ("rollout", "mean"), (-1, 0)])
def test_any_mix_of_layers_and_heads_sums_to_one(reading, layer, head):
    found = attention_on_page(reading, layer, head)
    torch.testing.assert_close(found.weights.sum(1), torch.ones(len(reading.written)))
    assert found.image.shape[1] == len(reading.places)
    assert found.picture(0).size == found.picture().size


def test_a_rollout_has_no_heads(reading):
    with pytest.raises(ValueError, match="leave head out"):
        attention_on_page(reading, "rollout", 0)


def test_sam_windows_are_put_back_in_their_place(model, reading):
    """Block 0 has windows of 14 patches: patch (15, 3) sees rows 14-27 and columns 0-13 of the 32 x 32 patches."""
    found = attention_in_encoder(reading, "encoder.sam.blocks.0", (15, 3))
    assert found.weights.shape == (32, 32)
    assert (found.weights[14:28, :14] > 0).all()
    assert found.weights.sum() == pytest.approx(found.weights[14:28, :14].sum())
    assert found.weights.sum() + found.outside == pytest.approx(1)
    at_the_edge = attention_in_encoder(reading, "encoder.sam.blocks.0", (31, 31))
    assert at_the_edge.outside > 0.5  # of this window, only 4 x 4 patches are on the page
    whole = attention_in_encoder(reading, "encoder.sam.blocks.1", (0, 0))
    assert (whole.weights > 0).all()
    assert found.picture().size == whole.picture().size


def test_clip_sees_every_token_and_its_class_token(reading, tiled):
    found = attention_in_encoder(reading, "encoder.clip.blocks.0", (7, 7), head=0)
    assert found.weights.shape == (8, 8)
    assert 0 < found.outside < 1  # the class token
    of_a_tile = attention_in_encoder(tiled, "encoder.clip.blocks.0", (0, 9), tile=1)
    assert of_a_tile.weights.shape == (10, 10)
    for wrong in [("encoder.sam.blocks.9", (0, 0)), ("decoder.layers.0", (0, 0)), ("encoder.clip.blocks.0", (8, 0))]:
        with pytest.raises(ValueError, match=r"no (block|place)"):
            attention_in_encoder(reading, *wrong)
    with pytest.raises(ValueError, match="no tile 0"):
        attention_in_encoder(reading, "encoder.clip.blocks.0", (0, 0), tile=0)


def test_the_lens_of_the_last_layer_is_the_output(model, reading):
    found = lens(reading, candidates=4)
    with torch.no_grad():
        output = model(reading.input_ids, [[reading.views]]).logits[0].softmax(-1).topk(4, dim=-1)
    torch.testing.assert_close(found.tokens[-1], output.indices)
    torch.testing.assert_close(found.probabilities[-1], output.values)
    assert found.tokens.shape == (3, reading.input_ids.shape[1], 4)
    assert len(found.says(0, 5)) == 4
    assert found.picture(1).mode == "RGB"


def test_confidence_is_the_probability_of_what_was_written(model):
    wrote = observe(model, drawn(), mode="tiny", max_new_tokens=5, no_repeat_ngram=0)
    found = confidence(wrote)
    with torch.no_grad():
        logs = model(wrote.input_ids, [[wrote.views]]).logits[0, wrote.predicting].log_softmax(-1)
    for index, token in enumerate(wrote.written):
        assert found.probability[index] == pytest.approx(logs[index, token].exp().item(), rel=1e-5)
        assert found.tokens[index, 0] == token  # greedy: the likeliest one was written
    torch.testing.assert_close(found.entropy, torch.distributions.Categorical(logits=logs).entropy())
    assert [row["token"] for row in found.rows()] == wrote.words


def test_one_pass_says_what_the_steps_of_generation_said(model):
    from lightseek.text.generate import generate

    wrote = observe(model, drawn(), mode="tiny", max_new_tokens=6, no_repeat_ngram=0)
    (found,) = generate(model, wrote.input_ids[:, : wrote.prompt_length], [[wrote.views]], max_new_tokens=6)
    assert found.logprob == pytest.approx(confidence(wrote).probability.log().sum().item(), rel=1e-4)


STAGES = ["encoder.sam.blocks.0", "encoder.sam", "encoder.compressor", "encoder.clip", "projector", "layout"]


@pytest.mark.parametrize("stage", [*STAGES, "decoder.layers.1", "decoder.layers.2.mlp"])
def test_patching_a_stage_with_its_own_output_changes_nothing(model, reading, stage):
    with torch.no_grad():
        before = model(reading.input_ids, [[reading.views]]).logits
        with intervene(model, stage, "keep"):
            kept = model(reading.input_ids, [[reading.views]]).logits
        if not stage.startswith("decoder"):
            own = record(model, [stage], reading.views)[stage]
            with intervene(model, stage, replace(own)):
                put_back = model(reading.input_ids, [[reading.views]]).logits
            assert torch.equal(put_back, before)
        with intervene(model, stage, "zero"):
            assert not torch.equal(model(reading.input_ids, [[reading.views]]).logits, before)
        after = model(reading.input_ids, [[reading.views]]).logits
    assert torch.equal(kept, before)
    assert torch.equal(after, before)  # nothing stays behind


def test_zero_vision_tokens_are_a_prompt_whose_image_positions_are_zeros(model, reading):
    with torch.no_grad():
        with intervene(model, "layout", "zero"):
            blind = model(reading.input_ids, [[reading.views]]).logits
        x = model.embed(reading.input_ids, [[reading.views]])
        x[:, reading.image_positions] = 0
        by_hand = model.decoder.logits(model.decoder(x).hidden)
    assert torch.equal(blind, by_hand)


def test_edits_move_and_mix_tokens_but_keep_clips_class_token(model, reading):
    own = record(model, ["projector", "encoder.clip"], reading.views)
    with intervene(model, "projector", "permute"):
        moved = record(model, ["projector"], reading.views)["projector"][0]
    assert not torch.equal(moved, own["projector"][0])
    torch.testing.assert_close(moved.sort(1).values, own["projector"][0].sort(1).values)
    whole = model.encoder.clip
    kept = []
    handle = whole.register_forward_hook(lambda m, i, o: kept.append(o))
    with intervene(model, "encoder.clip", "average"):
        record(model, ["projector"], reading.views)
        model.encode_page(reading.views)
    handle.remove()
    torch.testing.assert_close(kept[0][:, 1:].mean(1, keepdim=True), own["encoder.clip"][0].mean(1, keepdim=True))


def test_a_part_of_the_positions_changes(model, reading):
    at = reading.image_positions[:3]
    with torch.no_grad(), intervene(model, "decoder.layers.2", "zero", at):
        seen = []
        handle = model.decoder.norm.register_forward_pre_hook(lambda m, i: seen.append(i[0]))
        model(reading.input_ids, [[reading.views]])
        handle.remove()
    changed = (seen[0][0] == 0).all(-1).nonzero()[:, 0]
    assert changed.tolist() == at.tolist()


def test_an_intervention_lasts_through_a_generation(model):
    seen = []
    with intervene(model, "decoder.layers.0", lambda tokens, run: seen.append((run, tokens.shape[1])) or tokens):
        observe(model, drawn(), mode="tiny", max_new_tokens=3, no_repeat_ngram=0)
    assert seen[0][0] == 0
    assert seen[0][1] > 70
    assert [length for _, length in seen[1:]] == [1] * len(seen[1:])  # one pass for each later token
    assert len(seen) >= 2


def test_a_stage_that_does_not_exist(model, reading):
    with pytest.raises(ValueError, match=r"no stage 'encoder\.sma'.*encoder\.sam"):
        find_stage(model, "encoder.sma")
    with pytest.raises(ValueError, match="recorded output is"), torch.no_grad():
        other = record(model, ["projector"], page_views(drawn(), "small"))["projector"]
        with intervene(model, "projector", replace(other)):
            model(reading.input_ids, [[reading.views]])


def test_the_encoder_carries_everything_and_the_last_layers_image_positions_nothing(model, reading):
    found = patching(reading, page_views(Image.new("RGB", (600, 400), "white"), "tiny"))
    assert found.scores["layout"] == pytest.approx(1, abs=1e-4)
    assert found.scores["encoder.sam"] == pytest.approx(1, abs=1e-4)
    assert found.scores["decoder.layers.2"] == pytest.approx(0, abs=1e-4)  # no later layer reads the image's positions
    assert found.picture().mode == "RGB"


def test_attribution_is_the_gradient_and_white_paper_has_none(model, reading):
    found = attribution(reading, 2)
    assert found.weights.shape == (32, 32)
    assert found.tiles is None
    ink = (reading.views.global_view.reshape(3, 32, 16, 32, 16) < 0.999).any(0).any(1).any(-1)
    assert (found.weights[~ink] == 0).all()
    assert found.weights[ink].abs().sum() > 0
    page = reading.views.global_view

    def score(step: float) -> float:
        moved = type(reading.views)(page + step * (page - 1))
        ids = reading.input_ids[:, : reading.prompt_length + 2]
        with torch.no_grad():
            return model(ids, [[moved]]).logits[0, -1].double().log_softmax(-1)[reading.written[2]].item()

    slope = (score(1e-2) - score(-1e-2)) / 2e-2  # along the direction input - paper
    assert found.weights.sum().item() == pytest.approx(slope, rel=0.05, abs=1e-5)
    with pytest.raises(IndexError):
        attribution(reading, 99)


def test_attribution_reaches_the_tiles(tiled):
    found = attribution(tiled, 0)
    columns, rows = tiled.views.grid
    assert found.tiles.shape == (columns * rows, 40, 40)
    assert found.tiles.abs().sum() > 0


def test_pictures_of_stages_and_experts(model, reading):
    assert stage_picture(reading, "encoder.compressor").size == (480, 480)
    assert stage_picture(reading, "encoder.sam.blocks.1").getcolors(100_000)
    chosen = experts_of(reading, 0)
    with torch.no_grad():
        routing = model(reading.input_ids, [[reading.views]]).routing[0]
    torch.testing.assert_close(chosen, routing.experts[0, reading.image_positions])
    assert experts_picture(reading, 0).width >= 480
    with pytest.raises(IndexError, match="this decoder has 2"):
        experts_of(reading, 2)
    with pytest.raises(ValueError, match="no square map"):
        stage_picture(reading, "layout")


@pytest.mark.parametrize("folder", [gpt2_folder, qwen3_folder])
def test_decoders_of_transformers_can_be_looked_into_too(tmp_path, folder):
    model = small_model()
    swap_decoder(model, f"hf:{folder(tmp_path / 'decoder')}")
    reading = observe(model.eval(), drawn(), mode="tiny", text="red boats")
    found = attention_on_page(reading, layer=0)
    torch.testing.assert_close(found.weights.sum(1), torch.ones(len(reading.written)), rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        output = model(reading.input_ids, [[reading.views]]).logits[0].argmax(-1)
    assert torch.equal(lens(reading).tokens[-1, :, 0], output)
    assert attribution(reading, 0).weights.abs().sum() > 0


def test_read_tells_its_confidence(tmp_path, capsys):
    page = tmp_path / "note.txt"
    page.write_text("Ola has 3 maps.")
    assert main(["read", str(page), "--mode", "tiny", "--confidence", "--json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["pages"]
    assert "".join(row["token"] for row in told["confidence"]).startswith(told["text"])
    assert all(len(row["candidates"]) == 3 and 0 < row["probability"] <= 1 for row in told["confidence"])
    assert main(["read", str(page), "--mode", "tiny", "--confidence"]) == 0
    assert "Ola has 3 maps." in capsys.readouterr().out


def test_plain_hooks_and_nnsight_work_on_our_modules(model, reading):
    """The recipes of docs/inspect.md."""
    kept = {}
    handle = model.encoder.compressor.register_forward_hook(lambda m, i, output: kept.update(out=output.detach()))
    with torch.no_grad():
        model(reading.input_ids, [[reading.views]])
    handle.remove()
    assert kept["out"].shape == (1, 32, 8, 8)

    nnsight = pytest.importorskip("nnsight")
    wrapped = nnsight.NNsight(model)
    with torch.no_grad(), wrapped.trace(reading.input_ids, [[reading.views]]):
        features = wrapped.encoder.compressor.output.save()
    torch.testing.assert_close(features, kept["out"])
