"""Make lightseek/weights/nano/tokenizer.json: byte-level BPE that is trained on generated text only.

    python -m experiments.nano.make_tokenizer           # write the file
    python -m experiments.nano.make_tokenizer --check   # fail if the committed file is different

- The ids are 0 for begin, 1 for end, 2 for padding, 3 for <image>, 4 to 259 for the bytes and 260 to 348 for merges.
- No merge joins two characters, so a token is one character. Common characters of two or three bytes, such as é and €,
  have their own token, and rarer ones are spelled in bytes. A small model learns to copy letters one by one long before
  it can name the right one of a thousand longer tokens (docs/nano.md).
- The training text has three sources: synthetic documents, random words from the syllables below, and random strings
  of accents and punctuation.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random

from lightseek.data.sources import synthetic
from lightseek.text.tokenizer import BEGIN, END, IMAGE, PAD, Tokenizer
from lightseek.tools.files import write_text

TARGET = Path(__file__).parents[2] / "lightseek" / "weights" / "nano" / "tokenizer.json"
VOCABULARY = 349
DOCUMENTS, WORD_LINES, STRING_LINES = 4_000, 30_000, 400


def parts(text: str, nothing: int = 0) -> list[str]:
    """The words of `text`, after `nothing` empty strings. `likely` takes the first ones most often."""
    return [""] * nothing + text.split()


# The parts of made-up words that look English.
ONSETS = parts(
    """s t c p r b d m f l h st n w g pr tr ch v cr sh br pl gr qu sp fr dr th bl cl fl k j sc str wh y sl sw""", 2
)
NUCLEI = parts("e a i o e a u i o ea ou ai ee oo io y ie au oi ue")
CODAS = parts("n r t s l d n r m c nd st nt p ll ck ss ng g rs ct v rd b rt lt ld sh mp nce rm ts x", 3)
STARTS = parts("re in un de con com pre pro dis ex en sub im inter over", 6)
SUFFIXES = parts(
    """s ed ing er ion ation ly al e es able ent ment ive ity ness ure ous age ate ist ful ance ence less""", 7
)
FREQUENT = parts(
    """the of and to in a is that for it be as with on by this are or at from an if not was which can have will but one
    all use used when has no may its into any than other must also only then you more been their they would each some
    such do does so there these where default value name return returns given set list file object string number type
    method class function should time first new same two after before between over most made like what who how we our
    your out up about many were had see without current case data"""
)
ACCENTED = "àáâãäåæçèéêëìíîïñòóôõöøùúûüýßœšžčćřůąęłńśźżőűăâîșțğışÀÁÂÄÅÆÇÈÉÊÍÑÓÔÖØÙÚÜŠŽČŁŚ"
MARKS = ".,;:!?'\"()[]{}<>/\\|@#$%^&*-_=+~`€£°–—…«»“”‘’"


def likely(random: Random, options: list[str]) -> str:
    """One of the options. Earlier ones are likelier, as common letters and words are in a language."""
    return options[int(len(options) * random.random() ** 2)]


def random_word(random: Random) -> str:
    """A made-up word of one to three syllables."""
    syllables = [
        likely(random, ONSETS) + likely(random, NUCLEI) + likely(random, CODAS)
        for _ in range(1 + int(3 * random.random() ** 2))
    ]
    return likely(random, STARTS) + "".join(syllables) + likely(random, SUFFIXES)


def random_words(random: Random, count: int) -> str:
    """`count` words with some capitals and punctuation. Half of them are frequent English words."""
    words = []
    for _ in range(count):
        word = likely(random, FREQUENT) if random.random() < 0.5 else random_word(random)
        word = word.capitalize() if random.random() < 0.12 else word
        mark = random.choice(".,;:!?") if random.random() < 0.1 else ""
        words.append(f"({word})" if random.random() < 0.01 else word + mark)
    return " ".join(words)


def random_string(random: Random, length: int) -> str:
    """`length` random characters. Accented letters, punctuation and plain letters are equally frequent."""
    return "".join(random.choice(random.choice((ACCENTED, MARKS, "etaoinshrdlu "))) for _ in range(length))


def corpus() -> Iterator[str]:
    """The texts that the tokenizer is trained on."""
    random = Random("nano tokenizer")
    for document in synthetic.documents("train", DOCUMENTS):
        yield document.text
        yield document.summary
    for _ in range(WORD_LINES):
        indent = 4 * random.randrange(1, 3) if random.random() < 0.2 else 0
        yield "\n" + " " * indent + random_words(random, 12)
    for _ in range(STRING_LINES):
        yield random_string(random, 60)


def make() -> str:
    """The content of tokenizer.json."""
    from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
    from tokenizers import Tokenizer as Trainable

    tokenizer = Trainable(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=[BEGIN, END, PAD, IMAGE],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    fields = json.loads(tokenizer.to_str())
    return json.dumps(fields, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the committed file instead of writing it")
    arguments = parser.parse_args()

    from rich.console import Console

    console = Console(soft_wrap=True)
    definition = make()
    if arguments.check:
        if not TARGET.is_file() or TARGET.read_text(encoding="utf-8") != definition:
            raise SystemExit(f"{TARGET} is not what this script makes: run it without --check")
        console.print(f"{TARGET} is what this script makes")
        return
    write_text(TARGET, definition)
    tokenizer = Tokenizer.from_file(TARGET)
    texts = [document.text for document in synthetic.documents("test", 500)]
    ratio = sum(map(len, texts)) / sum(len(tokenizer.encode(text)) for text in texts)
    console.print(f"{TARGET}: {tokenizer.vocab_size} tokens, {ratio:.2f} characters per token on synthetic documents")


if __name__ == "__main__":
    main()
