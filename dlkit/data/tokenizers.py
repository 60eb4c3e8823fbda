"""Text as integers and back: by character, by byte, or by the pieces of a trained `tokenizer.json`."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dlkit.data.word_tokenizer import WordTokenizer

__all__ = ["BPETokenizer", "ByteTokenizer", "CharTokenizer", "Tokenizer", "load_tokenizer"]

FILE = "tokenizer.json"


class Tokenizer(Protocol):
    """What turns text into ids and back; `vocab` ids, `0 .. vocab - 1`."""

    @property
    def vocab(self) -> int: ...

    def encode(self, text: str) -> np.ndarray:
        """The ids, int32 `[T]`."""
        ...

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        """The text of ids `[T]`."""
        ...


@dataclass(frozen=True)
class CharTokenizer:
    """One id a character: its place in `symbols`.

    >>> tokenizer = CharTokenizer.from_text("hello")
    >>> tokenizer, tokenizer.encode("hole"), tokenizer.decode([1, 0, 2, 2, 3])
    (CharTokenizer(symbols='ehlo'), array([1, 3, 2, 0], dtype=int32), 'hello')

    Raises:
      ValueError: a symbol that stands twice; in `encode`, a character that is not among them.
    """

    symbols: str

    def __post_init__(self) -> None:
        if len(set(self.symbols)) != len(self.symbols):
            raise ValueError("CharTokenizer got a symbol twice: expected each once")

    @classmethod
    def from_text(cls, text: str) -> "CharTokenizer":
        """The characters of `text`, sorted."""
        return cls("".join(sorted(set(text))))

    @property
    def vocab(self) -> int:
        return len(self.symbols)

    def encode(self, text: str) -> np.ndarray:
        places = {symbol: i for i, symbol in enumerate(self.symbols)}
        if unknown := set(text) - places.keys():
            raise ValueError(
                f"CharTokenizer has no {sorted(unknown)[0]!r}: its {self.vocab} symbols are {self.symbols!r}"
            )
        return np.array([places[symbol] for symbol in text], np.int32)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return "".join(self.symbols[i] for i in _checked(ids, self.vocab))

    def save(self, directory: str | Path) -> None:
        """Write it as `tokenizer.json`, for `load_tokenizer`."""
        text = json.dumps({"dlkit": "CharTokenizer", "symbols": self.symbols}, ensure_ascii=False)
        (Path(directory) / FILE).write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class ByteTokenizer:
    """One id a byte of UTF-8: 256 ids, no unknown text. Bytes that are no UTF-8 are decoded as U+FFFD.

    >>> ByteTokenizer().encode("é"), ByteTokenizer().decode([195, 169])
    (array([195, 169], dtype=int32), 'é')
    """

    @property
    def vocab(self) -> int:
        return 256

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode("utf-8"), np.uint8).astype(np.int32)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return bytes(_checked(ids, 256)).decode("utf-8", "replace")

    def save(self, directory: str | Path) -> None:
        """Write it as `tokenizer.json`, for `load_tokenizer`."""
        (Path(directory) / FILE).write_text(json.dumps({"dlkit": "ByteTokenizer"}), encoding="utf-8")


@dataclass(frozen=True, eq=False)
class BPETokenizer:
    """The tokenizer of a `tokenizer.json`, run by Hugging Face's `tokenizers` (`pip install tokenizers`).

    It reads every kind that this library has: byte pairs, word pieces, unigrams. `special` says whether `encode` adds
    the special tokens of the file's template ([CLS] .. [SEP] of BERT); `decode` leaves special tokens out.

    Raises:
      ImportError: `tokenizers` is not installed.
      FileNotFoundError: there is no such file.
    """

    path: str | Path
    special: bool = False

    def __post_init__(self) -> None:
        if not Path(self.path).is_file():
            raise FileNotFoundError(f"there is no tokenizer at {self.path}")
        try:
            import tokenizers
        except ImportError:
            raise ImportError(f"reading {self.path} needs one more package: pip install tokenizers") from None
        object.__setattr__(self, "_inner", tokenizers.Tokenizer.from_file(str(self.path)))

    @property
    def vocab(self) -> int:
        return self._held.get_vocab_size()

    @property
    def _held(self) -> Any:
        return self._inner  # pyright: ignore[reportAttributeAccessIssue]

    def encode(self, text: str) -> np.ndarray:
        return np.array(self._held.encode(text, add_special_tokens=self.special).ids, np.int32)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        return self._held.decode(_checked(ids, self.vocab))

    def id_of(self, token: str) -> int | None:
        """The id of a token such as "<|endoftext|>", None where there is none."""
        return self._held.token_to_id(token)


def load_tokenizer(directory: str | Path) -> CharTokenizer | ByteTokenizer | WordTokenizer | BPETokenizer:
    """The tokenizer in a directory: its `tokenizer.json`, Hugging Face's or one that `save` wrote.

    >>> import tempfile
    >>> folder = tempfile.mkdtemp()
    >>> CharTokenizer("abc").save(folder)
    >>> load_tokenizer(folder)
    CharTokenizer(symbols='abc')

    Raises:
      FileNotFoundError: there is no `tokenizer.json`.
      ValueError: it is not one.
    """
    path = Path(directory) / FILE
    if not path.is_file():
        raise FileNotFoundError(
            f"{directory} holds no {FILE}: expected one, Hugging Face's or that of a tokenizer's save"
        )
    try:
        told = json.loads(path.read_text(encoding="utf-8"))
        kind = told.get("dlkit")
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{path} is no tokenizer: {error}") from None
    if kind == "CharTokenizer":
        return CharTokenizer(str(told["symbols"]))
    if kind == "WordTokenizer":
        return WordTokenizer(tuple(str(word) for word in told["words"]))
    return ByteTokenizer() if kind == "ByteTokenizer" else BPETokenizer(path)


def _checked(ids: Sequence[int] | np.ndarray, vocab: int) -> list[int]:
    found = [int(i) for i in np.asarray(ids).ravel()]
    if found and not 0 <= min(found) <= max(found) < vocab:
        raise ValueError(f"decode got ids from {min(found)} to {max(found)}: expected 0 .. {vocab - 1}")
    return found
