"""Tests of the exercises: every solution passes its check, and a usual mistake is told apart and explained."""

import re
from importlib import import_module

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from notebooks.build import sources
from notebooks.checks import check, why_wrong

NUMBERS = [path.name[:2] for path in sources()]


def exercises() -> list[str]:
    return [name for number in NUMBERS for name in import_module(f"notebooks.checks.n{number}").CHECKS]


def solution(name: str):
    return import_module(f"notebooks.solutions.n{name[:2]}").SOLUTIONS[name]


def window(x, w):
    """Cut windows column by column, which is the wrong order."""
    return x.unfold(1, w, w).unfold(2, w, w).permute(0, 2, 1, 4, 5, 3).reshape(-1, w, w, x.shape[-1])


class NoChannels(nn.Module):
    def __init__(self, config, factor=4):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return F.max_pool2d(x, self.factor)


class Pool(nn.Module):
    """A pool and a map: of the mean where the maximum is asked for, or with a fault."""

    def __init__(self, config, factor=4, detached=False, batch=False):
        super().__init__()
        self.factor, self.detached = factor, detached
        self.widen = nn.Conv2d(config.sam.neck, config.clip.width, 1)
        self.norm = nn.BatchNorm2d(config.clip.width) if batch else nn.Identity()

    def forward(self, x):
        return self.norm(self.widen(F.avg_pool2d(x.detach() if self.detached else x, self.factor)))


# An exercise's name, a wrong answer, and what the check must say about it.
WRONG = [
    ("00.1", lambda text, vision: vision / text, "divided the vision tokens"),
    ("00.2", lambda ids, image: (ids == image).sum(), r"Shape: .* b = \[2\]"),
    ("00.3", lambda logits, labels: F.cross_entropy(logits.flatten(0, 1), labels.flatten()), "its own token"),
    (
        "00.3",
        lambda logits, labels: F.cross_entropy(logits.detach()[:, :-1].flatten(0, 1), labels[:, 1:].flatten()),
        "Gradient: none reaches the logits",
    ),
    ("01.1", lambda x, p: x.reshape(2, 2, 2, -1), "mixes pixels"),
    ("01.1", lambda x, p: F.unfold(x, p, stride=p).transpose(1, 2), "3 axes and needs 4"),
    ("01.2", lambda patches, weight: patches @ weight.permute(0, 2, 3, 1).flatten(1).T, "another order"),
    ("01.3", lambda x, w: window(F.pad(x, (0, 0, 0, -x.shape[1] % w, 0, -x.shape[1] % w)), w), "column by column"),
    ("01.4", lambda table, g: table[torch.arange(g)[None] - torch.arange(g)[:, None] + g - 1], "key - query"),
    (
        "01.5",
        lambda side, window: (side // 16) ** 4 if not window else (side // 16 // window) ** 2 * window**4,
        "edges",
    ),
    ("02.1", lambda side: (side // 16) ** 2, "number of patches"),
    ("02.2", lambda side: (side // 64) ** 2 + side // 64, "separator is missing"),
    ("02.3", lambda x, a, b: F.conv2d(F.conv2d(x, a, stride=2), b, stride=2), "Without padding"),
    (
        "02.3",
        lambda x, a, b: F.conv2d(F.gelu(F.conv2d(x, a, stride=2, padding=1)), b, stride=2, padding=1),
        "GELU between",
    ),
    ("02.4", lambda x, f: F.max_pool2d(x, f), "maximum"),
    ("02.4", lambda x, f: F.avg_pool2d(x.detach(), f), "Gradient"),
    ("02.5", lambda tokens, width, height: tokens * min(width, height) // max(width, height), "Round up"),
    ("03.1", lambda x, first: torch.cat([x.flatten(2).mT, first.expand(2, 1, -1)], 1), "at the end"),
    ("03.2", lambda clip, local: torch.cat([clip[:, :-1], local], -1), "dropped the last token"),
    ("03.2", lambda clip, local: torch.cat([clip[:, 1:], local.detach()], -1), "Gradient: none reaches the compressor"),
    ("03.3", F.silu, "1.702 is missing"),
    ("03.4", lambda tokens, newline, separator: torch.cat([tokens, separator[None]]), "Look at p"),
    ("04.1", lambda x, weight, eps: F.layer_norm(x, (8,), weight, eps=eps), "subtracted the mean"),
    ("04.2", lambda q, k, v: F.scaled_dot_product_attention(q, k, v), "keys after it"),
    (
        "04.2",
        lambda q, k, v: F.scaled_dot_product_attention(q, k.detach(), v, is_causal=True),
        "Gradient: none reaches k",
    ),
    ("04.2", lambda q, k, v: q @ k.transpose(-2, -1), "Look at k"),
    ("04.3", lambda x, gate, up, down: (x @ gate.T * (x @ up.T)) @ down.T, "no activation"),
    ("04.4", lambda x, w, k: (x @ w.T).topk(k).values.softmax(-1), "Return two tensors"),
    ("04.4", lambda x, w, k: ((x @ w.T).topk(k).values.softmax(-1), (x @ w.T).topk(k).indices), "softmax ran over"),
    (
        "04.5",
        lambda p, chosen: (torch.zeros_like(p).scatter(2, chosen, 1.0).mean(1) / 2 * p.mean(1)).sum(1).mean(),
        "number of experts",
    ),
    ("04.6", lambda experts, chosen, shared, size: chosen * size, "shared experts are missing"),
    ("05.1", lambda step, prompt, eos, limit: [int(step(prompt).argmax()) for _ in range(3)], "prompt alone"),
    ("05.2", lambda prompt, new, cache: prompt + new, "not put in again"),
    (
        "05.3",
        lambda layers, heads, width, positions, size: layers * heads * width * positions * size,
        "keys and values",
    ),
    ("05.4", lambda tokens, n: {tokens[tokens.index(tokens[1 - n]) + n - 1]} if len(tokens) > n else set(), "several"),
    ("06.1", lambda model: model.requires_grad_(False), "decoder does not learn"),
    ("06.1", lambda model: model.encoder.requires_grad_(False), "stayed frozen"),
    ("06.2", lambda model: sum(p.numel() for p in model.parameters()), "frozen parameters too"),
    ("06.3", lambda frozen: [not f for f in frozen], "must pass it"),
    ("06.4", lambda learned, recited: "reads" if learned and not all(recited) else "recites", "is enough"),
    ("07.1", lambda characters, per_token, vision: characters / vision, "counted characters"),
    ("07.2", lambda edits, lengths: sum(e / n for e, n in zip(edits, lengths, strict=True)) / len(edits), "short page"),
    ("07.3", lambda values, seed: (min(values), max(values)), "too wide"),
    ("07.4", lambda points, goal: max((r for r, p in points if p >= goal), default=0), "one between"),
    ("08.1", lambda text, seed: "".join(sorted(text)), "shuffled the letters"),
    ("08.2", lambda a, b: sum(x != y for x, y in zip(a, b, strict=False)) / len(b), "place by place"),
    ("08.3", lambda a, b: (sum(a) / 4 - sum(b) / 4, torch.tensor([*a, *b]).std().item()), "Standard error: Your value"),
    ("09.1", NoChannels, "CLIP needs"),
    ("09.1", Pool, "not the maximum"),
    ("09.2", lambda channels, factor, hidden, width: channels * hidden + hidden * width, "16 times as many inputs"),
    ("09.3", lambda config, factor=4: Pool(config, factor, detached=True), "Gradient"),
    ("09.3", lambda config, factor=4: Pool(config, factor, batch=True), "BatchNorm"),
    ("10.1", lambda x, w, a, b, alpha: x @ w.T + x @ a.T @ b.T, "scale alpha / r"),
    ("10.1", lambda x, w, a, b, alpha: x @ (w + (b @ a).detach() * alpha / 2).T, "Gradient: none reaches A"),
    ("10.2", lambda d_in, d_out, r: r * d_in, "Both learn"),
    ("10.3", lambda d_in, d_out, r: (torch.zeros(r, d_in), torch.zeros(d_out, r)), "neither ever learns"),
    ("10.3", lambda d_in, d_out, r: (torch.ones(r, d_in), torch.ones(d_out, r)), "changes the model"),
    ("10.4", lambda w, a, b, alpha: (w + b @ a * alpha / 2).T, "two axes are exchanged"),
    ("11.1", lambda weights, places: weights[:, places].mean(1), "share is a sum"),
    ("11.2", lambda maps: maps[2] @ maps[1] @ maps[0], "residual path"),
    ("11.3", lambda state, norm, head: head(state).softmax(-1), "norm is missing"),
    ("11.4", lambda patched, clean, corrupt: (clean - patched) / (clean - corrupt), "still missing"),
    ("11.5", lambda logits: -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1), "not finite"),
]


@pytest.mark.parametrize("name", exercises())
def test_a_solution_is_right(name):
    assert why_wrong(name, solution(name)) is None


@pytest.mark.parametrize(("name", "answer", "told"), WRONG, ids=[f"{name}-{told[:12]}" for name, _, told in WRONG])
def test_a_wrong_answer_is_explained(name, answer, told):
    found = why_wrong(name, answer)
    assert found is not None and re.search(told, found), found


def test_every_exercise_has_a_wrong_answer_here_and_no_answer_is_right():
    def unanswered(*_, **__):
        raise NotImplementedError

    assert {name for name, _, _ in WRONG} == set(exercises())
    for name in exercises():
        assert "no answer yet" in why_wrong(name, unanswered), name
        assert why_wrong(name, lambda *_, **__: None) is not None, name


def test_each_notebook_has_three_to_six_exercises_and_solutions_for_them():
    for number in NUMBERS:
        names = list(import_module(f"notebooks.checks.n{number}").CHECKS)
        assert 3 <= len(names) <= 6, number
        assert names == list(import_module(f"notebooks.solutions.n{number}").SOLUTIONS)


def test_check_prints_the_verdict(capsys):
    check("00.1", solution("00.1"))
    check("00.1", lambda text, vision: "ten")
    assert capsys.readouterr().out.splitlines() == [
        "00.1: right.",
        "00.1: not yet. The answer is one number, and yours is of the type str.",
    ]


def test_an_error_in_an_answer_is_told():
    assert why_wrong("00.1", lambda text, vision: text / 0) == "Your code raised ZeroDivisionError: division by zero"
