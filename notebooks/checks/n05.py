"""The checks of notebook 05: reading."""

import torch

from . import Check, Wrong, same, same_number

EOS = 0


def greedy(answer) -> None:
    seen = []

    def step(ids):
        seen.append(list(ids))
        scores = torch.full((6,), -1.0)
        scores[[1, 2, 3, EOS][min(len(ids) - 2, 3)]] = 0.5  # after two tokens of a prompt: 1, 2, 3, EOS
        return scores

    got = answer(step, [5, 5], EOS, 10)
    if isinstance(got, list) and got[:2] == [5, 5]:
        raise Wrong("Your answer begins with the prompt. Return the new tokens only.")
    if isinstance(got, list) and got[-1:] == [EOS]:
        raise Wrong("The stop token is a part of your answer. Leave it out.")
    if len(seen) > 1 and all(ids == [5, 5] for ids in seen):
        raise Wrong("Each step saw the prompt alone. Give it the new tokens too.")
    if len(seen) > 4:
        raise Wrong("You went on after the stop token.")
    same(got, [1, 2, 3], "Value: the most probable tokens are [1, 2, 3], and then the stop token.")
    prompt = [5, 5]
    same(answer(step, prompt, EOS, 2), [1, 2], "Value: with limit=2 there are two tokens, [1, 2].")
    same(prompt, [5, 5], "You changed the list of the prompt. Copy it first.")


def computed(answer) -> None:
    cached = "For a prompt of 100, 10 new tokens and a cache: "
    mistakes = {
        "The last token is not put in again: nothing comes after it.": 110,
        "That is only the prompt. Each new token but the last one is put in too.": 100,
        "That is without a cache.": sum(100 + i for i in range(10)),
    }
    same_number(answer(100, 10, True), 109, mistakes, cached)
    mistakes = {
        "That is with a cache.": 109,
        "Each pass sees one position more than the one before.": 1000,
        "The first pass sees the prompt alone.": sum(101 + i for i in range(10)),
    }
    same_number(answer(100, 10, False), sum(100 + i for i in range(10)), mistakes, "For the same without a cache: ")


def cache_bytes(answer) -> None:
    one = 12 * 10 * 128 * 1000 * 2
    mistakes = {
        "There are keys and values: twice as many numbers.": one,
        "Each layer has a cache of its own.": 2 * 10 * 128 * 1000 * 2,
        "That is the number of numbers. A bfloat16 number has 2 bytes.": one,
    }
    same_number(answer(12, 10, 128, 1000, 2), 2 * one, mistakes, "For the official decoder and 1000 positions: ")
    same_number(answer(1, 2, 3, 4, 4), 192, {}, "For 1 layer, 2 heads of 3, 4 positions of 4 bytes: ")


def banned(answer) -> None:
    cases = [
        ([1, 2, 3, 1, 2], 3, {3}),
        ([1, 2, 3, 1, 2, 4, 1, 2], 3, {3, 4}),
        ([1, 2, 3], 3, set()),
        ([7, 7], 2, {7}),
        ([4, 5], 1, {4, 5}),
        ([1], 3, set()),
    ]
    for tokens, n, right in cases:
        got = answer(list(tokens), n)
        where = f"For {tokens} and n={n}: "
        if n == 1 and got == set():
            raise Wrong(f"{where}with n=1 no token may come twice, so each token so far is forbidden.")
        if isinstance(got, set) and got < right:
            raise Wrong(f"{where}you found {got}. The last n - 1 tokens may have come several times before.")
        if isinstance(got, set) and got > right:
            raise Wrong(f"{where}{got - right} may come: it would make no n-gram that was there before.")
        same(got, right, f"{where}forbid what followed the last n - 1 tokens before.")


CHECKS: dict[str, Check] = {"05.1": greedy, "05.2": computed, "05.3": cache_bytes, "05.4": banned}
