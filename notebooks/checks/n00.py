"""The checks of notebook 00: a first look."""

import torch
import torch.nn.functional as F

from . import Check, gradient, random, same_number, same_tensor


def ratio(answer) -> None:
    swapped = "You divided the vision tokens by the text tokens. The ratio says how much text one vision token carries."
    same_number(answer(1000, 100), 10, {swapped: 0.1}, "For 1000 text tokens and 100 vision tokens: ")
    same_number(answer(91, 64), 91 / 64, {swapped: 64 / 91, "Do not round: 91 / 64 is no whole number.": 1})


def image_positions(answer) -> None:
    ids = torch.tensor([[0, 3, 3, 3, 9, 8], [2, 2, 0, 3, 7, 3]])
    right = torch.tensor([3, 2])
    mistakes = {"These are the positions that are not of the image.": torch.tensor([3, 4])}
    same_tensor(answer(ids, 3), right, "b", mistakes)
    same_tensor(answer(ids, 9), torch.tensor([1, 0]), "b", name="output for another image token")


def shifted_loss(answer) -> None:
    logits = random(2, 5, 7).requires_grad_()
    labels = torch.tensor([[-100, -100, 4, 2, 1], [-100, 3, 0, 6, -100]])
    right = F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)
    unshifted = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)
    backwards = F.cross_entropy(logits[:, 1:].flatten(0, 1), labels[:, :-1].flatten(), ignore_index=-100)
    mistakes = {
        "each position is compared with its own token. The logits of a position are about the next token.": unshifted,
        "you shifted the wrong way: position i predicts token i + 1.": backwards,
        "you took the sum. The loss is the mean over the labels that count.": right * 6,
        "you divided by all positions. The labels of -100 do not count.": right * 6 / 8,
    }
    got = answer(logits, labels)
    same_tensor(got, right, "", mistakes, "loss")
    gradient(got, logits, "the logits")


CHECKS: dict[str, Check] = {"00.1": ratio, "00.2": image_positions, "00.3": shifted_loss}
