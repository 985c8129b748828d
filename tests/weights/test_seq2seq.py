"""Tests of BART as a baseline. The code that trains, runs and scores our model does the same for it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tiny_models import bart_folder, small_model

from lightseek.data.document import Document
from lightseek.data.examples import ExampleMaker, collate
from lightseek.lab.grid import grid
from lightseek.lab.results import finish
from lightseek.lab.summary import summarise
from lightseek.lab.tables import results_table
from lightseek.model.seq2seq import Seq2Seq
from lightseek.page.spec import PageSpec
from lightseek.page.views import PageViews
from lightseek.text.generate import generate
from lightseek.tools.padding import pad_batch
from lightseek.training.build import build_model
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig
from lightseek.weights.hf import load_seq2seq

DOCUMENTS = [
    Document("The river Orla is long. It is wide.", "It is long.", "orla"),
    Document("Rain fell.", "It rained all day.", "rain"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return bart_folder(tmp_path_factory.mktemp("hub") / "bart")


@pytest.fixture(scope="module")
def bart(folder):
    return load_seq2seq(str(folder))


def examples(bart: Seq2Seq):
    make = ExampleMaker(bart.config, bart.tokenizer, "summarize", PageSpec("tiny"), context="text")
    return [make(document) for document in DOCUMENTS]


def test_the_prompt_goes_to_the_encoder_and_the_target_to_the_decoder(bart):
    example = examples(bart)[0]
    batch = collate([example], bart.config.pad_token_id)
    with torch.no_grad():
        ours = bart(batch.input_ids, pages=batch.pages, labels=batch.labels, logits="labelled")
        theirs = bart.decoder.model(torch.tensor([example.prompt]), labels=torch.tensor([example.target]))
    assert ours.cross_entropy.item() == pytest.approx(theirs.loss.item(), rel=1e-5)
    torch.testing.assert_close(ours.logits, theirs.logits[0])


def test_padding_changes_no_loss(bart):
    pad, parts = bart.config.pad_token_id, examples(bart)
    with torch.no_grad():
        batch = collate(parts, pad)
        together = bart(batch.input_ids, batch.pages, batch.labels, batch.mask).cross_entropy.item()
        alone = 0.0
        for part in parts:
            one = collate([part], pad)
            alone += bart(one.input_ids, one.pages, one.labels).cross_entropy.item() * len(part.target)
    assert together == pytest.approx(alone / sum(len(part.target) for part in parts), rel=1e-5)


@pytest.mark.parametrize("beams", [1, 3])
def test_it_writes_what_transformers_writes_alone_and_in_a_batch(bart, beams):
    prompts, pad = [example.prompt for example in examples(bart)], bart.config.pad_token_id
    ids, mask = pad_batch(prompts, pad, side="left")
    together = generate(bart, ids, mask=mask, max_new_tokens=8, beams=beams)
    for prompt, ours in zip(prompts, together, strict=True):
        theirs = bart.decoder.model.generate(
            torch.tensor([prompt]), max_new_tokens=8, num_beams=beams, do_sample=False, length_penalty=1.0
        )
        tokens = theirs[0, 1:].tolist()  # without the token that starts every text
        assert ours.tokens == [token for token in tokens if token not in (bart.config.eos_token_id, pad)]
        assert ours.tokens == generate(bart, torch.tensor([prompt]), max_new_tokens=8, beams=beams)[0].tokens
    assert len({tuple(one.tokens) for one in together}) == 2  # different prompts give different texts


def test_pages_and_missing_labels_are_refused(bart):
    ids = torch.tensor([[1, 2, 3]])
    with pytest.raises(ValueError, match="reads text, not pages: use context=text"):
        bart(ids, pages=[[PageViews(torch.zeros(3, 512, 512))]], labels=ids)
    with pytest.raises(ValueError, match="needs labels"):
        bart(ids)


def test_it_learns_and_its_row_stands_in_the_table(folder, tmp_path):
    config = RunConfig(
        decoder=f"seq2seq:{folder}", context="text", freeze="embeddings", train_documents=4, eval_documents=2, steps=6,
        batch=4, eval_every=6, samples=1, max_new_tokens=6, lr=3e-3, device="cpu",
    )  # fmt: skip
    run = Run(config, tmp_path / "run")
    assert {count.box for count in run.counts if count.trainable} == {"decoder"}
    finish(run, run.fit())
    assert run.rows[-1]["train_loss"] < run.rows[0]["train_loss"]
    summary = summarise(run.folder)
    assert summary.rows[0].settings == {"mode": "text", "freeze": "embeddings"}
    assert list(results_table(summary).columns[0].cells) == ["trained", "lead-3"]

    run.model.save_pretrained(tmp_path / "saved")
    again, _ = build_model(replace(config, decoder=f"seq2seq:{tmp_path / 'saved'}"), "cpu")
    ours, back = run.model.state_dict(), again.state_dict()
    assert all(torch.equal(ours[name], back[name]) for name in ours)
    assert (again.config.bos_token_id, again.config.eos_token_id) == (0, 2)


def test_in_a_grid_it_reads_text_and_runs_once():
    lists = {"context": ["vision", "text"], "mode": ["tiny", "small"], "decoder": [None, "seq2seq:x"]}
    cells, swept = grid(RunConfig(cache_vision=True, freeze="encoder"), lists, Path("out"))
    assert all(bool(cell.config.cache_vision) == (cell.config.context == "vision") for cell in cells)
    found = [(cell.config.context, cell.config.mode, cell.config.decoder) for cell in cells]
    assert found == [
        ("vision", "tiny", None),
        ("text", "tiny", "seq2seq:x"),
        ("vision", "small", None),
        ("text", "tiny", None),
    ]
    assert set(swept) == {"mode", "freeze", "context", "decoder"}


def test_a_checkpoint_that_is_no_text_to_text_model_is_refused(tmp_path):
    small_model().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="transformers can't load this"):
        build_model(RunConfig(decoder=f"seq2seq:{tmp_path}", context="text"), "cpu")
