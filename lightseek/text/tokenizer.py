"""Text <-> token ids, for the shipped nano tokenizer and the official one: byte-level BPE in a `tokenizer.json`.

Byte-level means that every token is a string of bytes, so any text has ids and comes back from them exactly. The price:
one token may hold half a character, which is why streaming needs `StreamDecoder`.

A document that says "<image>" must not put a picture into the prompt. So `encode` reads special tokens as plain text
unless asked otherwise; only the code that writes the prompt asks.
"""

import codecs
import json
from functools import cached_property
from importlib.resources import as_file, files
from pathlib import Path

from lightseek.tools.files import write_text

BEGIN, END, PAD, IMAGE = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<image>"
MAX_BYTES = 100 << 20  # the official file has 10 MB


class Tokenizer:
    """Use `Tokenizer.nano()` or `Tokenizer.from_file(path)`."""

    def __init__(self, definition: str) -> None:
        """`definition` is the content of a tokenizer.json. Raises ValueError if it isn't a byte-level tokenizer's."""
        import tokenizers

        try:
            fields = json.loads(definition)
            self._marked = tokenizers.Tokenizer.from_str(definition)
            self._plain = tokenizers.Tokenizer.from_str(json.dumps(fields | {"added_tokens": []}))
        except Exception as error:  # the library raises bare Exceptions
            raise ValueError(f"not a tokenizer.json: {error}") from None
        decoder = fields.get("decoder") or {}
        if not any(part.get("type") == "ByteLevel" for part in [decoder, *decoder.get("decoders", [])]):
            raise ValueError("not a byte-level tokenizer: its decoder is not ByteLevel")
        for tokenizer in (self._marked, self._plain):  # a file may ask for either; neither is encode's business
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self._definition = definition
        self._added = {i: (t.content, t.special) for i, t in self._marked.get_added_tokens_decoder().items()}

    @classmethod
    def from_file(cls, path: str | Path) -> "Tokenizer":
        """Load a `tokenizer.json`, or the one in a checkpoint's folder.

        Raises FileNotFoundError, or ValueError naming the file when it can't be used.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(f"no tokenizer at {path}: a checkpoint's folder should hold its tokenizer.json")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} has more than {MAX_BYTES >> 20} MiB: that is no tokenizer.json")
        try:
            return cls(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"can't use {path}: {error}") from None

    @classmethod
    def nano(cls) -> "Tokenizer":
        """The shipped one: 4 special tokens, 256 bytes, 89 merges within characters: a token is a character."""
        with as_file(files("lightseek") / "weights" / "nano" / "tokenizer.json") as path:
            return cls.from_file(path)

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Ids of `text`, nothing added in front or behind.

        `special=True` turns "<image>" and other added tokens into their ids; otherwise they are text like any other.
        Raises ValueError for text that no UTF-8 can spell (a lone surrogate).
        """
        tokenizer = self._marked if special else self._plain
        try:
            return tokenizer.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError) as error:
            raise ValueError(f"can't encode text that is not valid Unicode: {error}") from None

    def decode(self, ids: list[int], keep_special: bool = False) -> str:
        """The text of `ids`, without special tokens unless they are to be kept.

        Ids without a token (a model's vocabulary may be larger) are left out; bytes that make no character become "�".
        """
        return b"".join(self.bytes_of(i, keep_special) for i in ids).decode("utf-8", "replace")

    def stream(self, keep_special: bool = False) -> "StreamDecoder":
        """A decoder that takes one id at a time."""
        return StreamDecoder(self, keep_special)

    def bytes_of(self, token_id: int, keep_special: bool = False) -> bytes:
        """The bytes that one token stands for; none for a special token, unless kept, or an id without a token."""
        if token_id in self._added:
            content, special = self._added[token_id]
            return content.encode() if keep_special or not special else b""
        token = self._marked.id_to_token(token_id) if token_id >= 0 else None
        return bytes(self._byte_of[character] for character in token or "")

    @cached_property
    def _byte_of(self) -> dict[str, int]:
        """Byte-level files spell each byte as a printable character: itself, or one of U+0100 and up."""
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [byte for byte in range(256) if byte not in printable]
        return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}

    @property
    def vocab_size(self) -> int:
        """How many tokens there are, added ones included."""
        return self._marked.get_vocab_size(with_added_tokens=True)

    def id_of(self, token: str) -> int | None:
        """The id of a token as the file spells it (`tokenizer.IMAGE`), or None."""
        return self._marked.token_to_id(token)

    def save(self, path: str | Path) -> None:
        """Write the tokenizer.json, unchanged, atomically."""
        write_text(path, self._definition)


class StreamDecoder:
    """Ids in, text out, one at a time; a character comes out when its last byte came in.

    What `push` and the final `flush` gave, joined, equals `decode` of all the ids. `tokenizers.decoders.DecodeStream`
    cannot promise that: it keeps back a "�" until another character follows, and at the end drops it.
    """

    def __init__(self, tokenizer: Tokenizer, keep_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._keep_special = keep_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """The text that this id completes; often empty."""
        return self._utf8.decode(self._tokenizer.bytes_of(token_id, self._keep_special))

    def flush(self) -> str:
        """At the end: "�" if a character was left unfinished. The decoder can then be used anew."""
        return self._utf8.decode(b"", final=True)
