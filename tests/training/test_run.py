"""Tests of the training loop: its examples and losses, runs that are killed and resumed, and settings it refuses."""

import json
import math
from dataclasses import replace

import pytest
import torch
from tiny_run import tiny_checkpoint, tiny_run

from lightseek.__main__ import parser
from lightseek.commands.generate import open_documents, open_maker
from lightseek.data.corruption import corrupt
from lightseek.data.document import Document
from lightseek.data.examples import ExampleMaker, collate
from lightseek.page.modes import positions
from lightseek.page.spec import PageSpec
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig
from lightseek.training.state import STATE
from lightseek.weights.loading import load_model

SMALL = RunConfig(
    mode="tiny", train_documents=6, eval_documents=2, steps=4, batch=2, eval_every=2, samples=0, freeze="encoder"
)


@pytest.fixture(scope="module")
def nano():
    return load_model(seed=0)


@pytest.fixture(scope="module")
def make(nano):
    return ExampleMaker(nano.config, nano.tokenizer, "summarize", PageSpec("tiny"))


def documents(count: int) -> list[Document]:
    return [Document(f"Page {i}. " * (i + 1), f"It is {i}." * (i + 1), f"d{i}") for i in range(count)]


def test_an_example_is_begin_image_prompt_then_target_end(make, nano):
    example = make(Document("The cat sat.", "A cat.", "cat"))
    image = nano.config.image_token_id
    assert example.prompt[0] == nano.config.bos_token_id
    assert example.prompt.count(image) == positions("tiny") == 73
    assert example.target[-1] == nano.config.eos_token_id
    assert nano.tokenizer.decode(example.target[:-1]) == "A cat."
    assert example.pages[0].global_view.shape == (3, 512, 512)


def test_a_document_too_long_for_one_page_becomes_several_images(nano):
    make = ExampleMaker(nano.config, nano.tokenizer, "summarize", PageSpec("tiny"))
    example = make(Document("word and more " * 600, "Words.", "long"))
    assert len(example.pages) > 1
    assert example.prompt.count(nano.config.image_token_id) == len(example.pages) * positions("tiny")


def test_a_document_the_decoder_has_no_room_for_is_named(nano):
    make = ExampleMaker(nano.config, nano.tokenizer, "ocr", PageSpec("tiny"))
    with pytest.raises(ValueError, match=r"document endless: .* positions; the decoder has 8192"):
        make(Document("word and more " * 3000, "Words.", "endless"))


def test_the_loss_sees_targets_only_and_padding_changes_nothing(make, nano):
    """The loss of a padded batch is the token-weighted mean of its samples' losses."""
    examples = [make(document) for document in documents(3)]
    batch = collate(examples, nano.config.pad_token_id)
    assert (batch.labels != -100).sum(1).tolist() == [len(example.target) for example in examples]
    with torch.no_grad():
        whole = nano(batch.input_ids, pages=batch.pages, labels=batch.labels, mask=batch.mask).loss.item()
        alone, tokens = 0.0, 0
        for example in examples:
            one = collate([example], nano.config.pad_token_id)
            assert one.mask is None
            alone += nano(one.input_ids, pages=one.pages, labels=one.labels).loss.item() * len(example.target)
            tokens += len(example.target)
    assert whole == pytest.approx(alone / tokens, rel=1e-5)


def test_scoring_labelled_positions_only_gives_the_same_loss(make, nano):
    batch = collate([make(document) for document in documents(2)], nano.config.pad_token_id)
    with torch.no_grad():
        losses = [
            nano(batch.input_ids, pages=batch.pages, labels=batch.labels, mask=batch.mask, logits=which).loss.item()
            for which in ("all", "labelled")
        ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


class Killed(Exception):
    pass


def test_a_killed_run_resumes_to_the_same_weights_bit_for_bit(tmp_path):
    unbroken = Run(SMALL, tmp_path / "unbroken")
    expected = unbroken.fit()

    def die_after_two(progress):
        if progress.step == 3:  # step 3 is done, but no checkpoint has it
            raise Killed

    first = Run(SMALL, tmp_path / "killed")
    first.config = RunConfig(**{**vars(SMALL), "save_seconds": 0.0})
    with pytest.raises(Killed):
        first.fit(die_after_two)
    second = Run(SMALL, tmp_path / "killed")
    found = second.fit()

    for (name, ours), theirs in zip(second.model.named_parameters(), unbroken.model.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    assert [found["train_loss"], found["eval_loss"]] == [expected["train_loss"], expected["eval_loss"]]
    losses = [[json.loads(line)["train_loss"] for line in (tmp_path / name / "metrics.jsonl").open()]
              for name in ("unbroken", "killed")]  # fmt: skip
    assert losses[0] == losses[1] and len(losses[0]) == SMALL.steps


def test_a_folder_of_another_run_is_refused(tmp_path):
    run = Run(SMALL, tmp_path)
    run.folder.mkdir(exist_ok=True)
    run.save_progress()
    assert (tmp_path / STATE).is_file()
    other = Run(RunConfig(**{**vars(SMALL), "lr": 0.5}), tmp_path)
    with pytest.raises(ValueError, match="from a run with other settings"):
        other.fit()


def test_splitting_a_batch_in_parts_gives_the_same_losses(tmp_path):
    """The weight of each part is its number of tokens. The balance loss is computed for each sequence, so the losses
    are equal only without it.
    """
    losses = []
    for parts in (1, 2, 4):
        run = Run(RunConfig(**{**vars(SMALL), "batch": 4, "accumulate": parts}), tmp_path / str(parts))
        run.model.config = replace(run.model.config, decoder=replace(run.model.config.decoder, balance_alpha=0.0))
        lengths = {len(run.make(document).target) for document in run.documents}
        assert len(lengths) > 1  # with equal lengths, equal weights of the parts would pass too
        losses.append([run.train_step(step)[0] for step in range(3)])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[0] == pytest.approx(losses[2], rel=1e-5)


def test_runs_of_unlike_precision_in_one_process(tmp_path):
    for precision in (None, "bf16"):
        run = Run(RunConfig(**{**vars(SMALL), "precision": precision}), tmp_path / str(precision))
        assert run.accelerator.mixed_precision == (precision or "no")


def test_mixed_precision_learns_what_full_precision_does_to_its_rounding(tmp_path):
    folder = tiny_checkpoint(tmp_path / "tiny")
    found = {}
    for precision in (None, "bf16"):
        run = Run(tiny_run(folder, precision=precision, lr=0.01), tmp_path / str(precision))
        run.fit()
        found[precision] = [row["train_loss"] for row in run.rows]
    assert found["bf16"] == pytest.approx(found[None], rel=0.01) and found["bf16"] != found[None]
    assert found["bf16"][-1] < found["bf16"][0] - 0.05


def test_fp16_on_a_cpu_is_refused(tmp_path):
    """accelerate scales gradients only on GPUs. On a CPU it would compute in float32 without a warning."""
    with pytest.raises(ValueError, match="precision=fp16 needs a GPU; use bf16 or none"):
        Run(tiny_run(tmp_path, precision="fp16"), tmp_path)


@pytest.mark.parametrize("norm", [1e-3, 1e9])
def test_gradients_are_clipped_to_a_norm_over_all_of_them(norm, tmp_path, monkeypatch):
    run = Run(tiny_run(tiny_checkpoint(tmp_path / "tiny"), max_grad_norm=norm), tmp_path / "run")
    run.wrap()
    norms = []

    def step(*_):
        gradients = [p.grad for p in run.model.parameters() if p.grad is not None]
        norms.append(torch.stack([gradient.norm() for gradient in gradients]).norm().item())

    monkeypatch.setattr(run.optimizer.optimizer, "step", step)
    run.train_step(0)
    assert norms == [pytest.approx(norm, rel=1e-3)] if norm < 1 else norms[0] > 0.01


def test_characters_the_font_lacks_are_counted(make):
    make(Document("a \u4f60 b \u4f60", "c", "cjk"))
    assert make.missing_glyphs["\u4f60"] == 2


def test_a_folder_of_ones_own_long_texts_needs_no_setting(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.txt").write_text(f"Document {i} begins here. " + f"It goes on for {i} pages. " * 60)
    run = Run(RunConfig(**{**vars(SMALL), "data": str(tmp_path), "summary_column": None}), tmp_path / "run")
    assert [len(part) > 0 for part in (run.documents, run.validation, run.test)] == [True] * 3
    with pytest.raises(ValueError, match=r"all 6 documents .* 100 characters"):
        Run(RunConfig(**{**vars(SMALL), "data": str(tmp_path), "characters": 100}), tmp_path / "run")


def test_a_loss_that_is_not_a_number_stops_the_run_and_says_what_to_do(tmp_path):
    run = Run(SMALL, tmp_path)
    with torch.no_grad():
        run.model.projector.layers.weight.fill_(math.nan)
    with pytest.raises(FloatingPointError, match="step 1: the loss is nan; lower lr"):
        run.fit()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"steps": -1}, "steps must be at least 0"),
        ({"accumulate": 9}, "is more than batch"),
        ({"task": "translate"}, "choose one of ocr, summarize"),
        ({"mode": "65"}, "unknown mode '65'"),
        ({"freeze": "all"}, "unknown freeze policy"),
        ({"data": "nowhere"}, "unknown source of documents"),
        ({"seed": -1}, "seed must be at least 0"),
        ({"init": "best"}, "choose one of pretrained, random"),
        ({"device": "quantum"}, "cannot be used"),
    ],
)
def test_settings_that_cannot_work_are_refused_before_the_first_step(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        Run(RunConfig(**{**vars(SMALL), **change}), tmp_path)


def test_training_evaluation_and_generate_see_the_same_corrupted_and_noisy_pages(tmp_path):
    """`PageSpec` and `corrupt_documents` are the only places: a run and `generate` make equal views and targets."""
    how = {"task": "ocr", "corrupt": "random", "noise": "speckle"}  # seed 0, which test documents have in every run
    run = Run(tiny_run(tiny_checkpoint(tmp_path / "tiny"), **how), tmp_path / "run")
    plain = Run(tiny_run(tmp_path / "tiny", task="ocr"), tmp_path / "plain")
    assert [d.text for d in run.documents] == [corrupt(d.text, "random", 0) for d in plain.documents]
    assert all(run.documents[i].summary == plain.documents[i].summary for i in range(6))

    argv = "generate unseen --out x --limit 3 --task ocr --mode tiny --corrupt random --noise speckle --seed 0"
    arguments = parser().parse_args([*argv.split(), "--model", str(tmp_path / "tiny"), "--device", "cpu"])
    documents, (_, make) = open_documents(arguments), open_maker(arguments)
    assert [d.text for d in documents] == [d.text for d in run.test]
    for ours, theirs in zip(run.test, documents, strict=True):
        one, other = run.make(ours), make(theirs)
        assert torch.equal(one.pages[0].global_view, other.pages[0].global_view) and one.target == other.target
        assert not torch.equal(one.pages[0].global_view, plain.make(ours).pages[0].global_view)


def test_no_steps_evaluate_the_weights_as_they_are_and_save_nothing(tmp_path):
    config = tiny_run(tiny_checkpoint(tmp_path / "tiny"), steps=0, samples=1, best="eval_loss")
    run = Run(config, tmp_path / "run")
    before = {name: value.clone() for name, value in run.model.state_dict().items()}
    trained = run.fit()
    assert trained["steps_taken"] == 0 and trained["eval_loss"] > 0 and "train_loss" not in trained
    assert all(torch.equal(before[name], value) for name, value in run.model.state_dict().items())
    assert [row["step"] for row in run.rows] == [0] and len(run.documents) == 1
    assert not list((tmp_path / "run").glob("*.safetensors"))


def test_all_seeds_are_tested_on_the_same_documents(tmp_path):
    model = tiny_checkpoint(tmp_path / "tiny")
    runs = [Run(tiny_run(model, seed=seed, corrupt="random"), tmp_path / str(seed)) for seed in (0, 1)]
    assert runs[0].test == runs[1].test and runs[0].validation == runs[1].validation
    assert runs[0].documents != runs[1].documents
