"""Divides documents into train, validation and test by a hash, so that a document's split never changes."""

import re
from collections.abc import Sequence
from typing import Literal, get_args
from zlib import crc32

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)
Shares = tuple[float, float, float]  # the shares of train, validation and test; their sum is 1
SMALL = 100  # different documents; with fewer, a hash could leave a split empty by chance
_PARTS: dict[Split, int] = {"test": 1, "validation": 1, "train": 8}
SPLIT_NAMES: dict[str, Split] = {  # those of the library `datasets`
    "train": "train",
    "training": "train",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
    "eval": "test",
    "evaluation": "test",
}
BETWEEN_WORDS = re.compile(r"[-._ 0-9]+")
SHARD = re.compile(r"-\d+-of-\d+$")


def check_split(split: str) -> None:
    """Raise ValueError, listing the choices, unless `split` is one of `SPLITS`."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {split!r}: choose one of {', '.join(SPLITS)}")


def named_split(name: str, alone: bool = False) -> Split | None:
    """Return the split that the name of a file or a folder stands for, or None.

    As in the library `datasets`, a split's name is a word of it: "test", "test2017", "my-test.v2", but not "contest". A
    name with the words of two splits stands for none. With `alone` there must be no other word: "test-plan" is the name
    of a text and not a split.
    """
    words = [word for word in BETWEEN_WORDS.split(SHARD.sub("", name.lower())) if word]
    found = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
    return found.pop() if len(found) == 1 and not (alone and len(words) > 1) else None


def text_split(text: str) -> Split:
    """Return the split of a text, which depends on its hash only: 80 % train, 10 % validation, 10 % test."""
    return part_of(text, SPLITS)


def part_of(key: str, splits: Sequence[Split]) -> Split:
    """Return one of `splits` for a key, which depends on its hash only: 8 parts train, 1 validation, 1 test.

    Raises ValueError if `splits` is empty.
    """
    parts = {split: part for split, part in _PARTS.items() if split in splits}
    bucket = crc32(key.encode()) % sum(parts.values())
    for split, part in parts.items():
        if bucket < part:
            return split
        bucket -= part
    raise ValueError("splits is empty: give at least one")


def divide(keys: Sequence[str], shares: Shares | None = None) -> dict[str, Split]:
    """Return the split of each key, by its hash. Fewer than `SMALL` different keys are divided by the order of hashes.

    Without `shares` the shares are those of `text_split`. Few keys are divided so that each split whose share is not
    0 gets at least one; if there are too few even for that, train comes first, then validation.
    """
    ranked = sorted(set(keys), key=lambda key: (crc32(key.encode()), key))
    if len(ranked) >= SMALL:
        return {key: text_split(key) if shares is None else share_of(key, shares) for key in ranked}
    train, validation, test = shares or (0.8, 0.1, 0.1)
    least = sum(share > 0 for share in (train, validation))  # keys that train and validation need before test gets one
    tests = min(max(1, int(len(ranked) * test)), max(0, len(ranked) - least)) if test else 0
    validations = min(max(1, int(len(ranked) * validation)), len(ranked) - tests - (train > 0)) if validation else 0
    if not train:  # so the other splits take all keys
        tests = len(ranked) - validations if test else 0
        validations = len(ranked) - tests
    return {
        key: "test" if rank < tests else "validation" if rank < tests + validations else "train"
        for rank, key in enumerate(ranked)
    }


def share_of(key: str, shares: Shares) -> Split:
    """Return the split of a key by its hash, where each split gets its share of all hashes."""
    place = crc32(key.encode()) / 2**32
    return "test" if place < shares[2] else "validation" if place < shares[2] + shares[1] else "train"
