"""Text as words."""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["WordTokenizer"]

SPECIAL = ("<pad>", "<start>", "<end>", "<unk>")


@dataclass(frozen=True)
class WordTokenizer:
    """One id a word or sign, after `<pad>` 0, `<start>` 1, `<end>` 2 and `<unk>` 3, which stands for every other word.

    Words are runs of letters and digits; every other sign but spaces is a token of its own. Case is kept. `decode`
    leaves `<pad>`, `<start>` and `<end>` out and joins with spaces.

    >>> tokenizer = WordTokenizer.from_texts(["Il dort.", "Il va !"])
    >>> tokenizer.words, tokenizer.encode("Il parle."), tokenizer.decode([1, 5, 8, 2])
    (('!', '.', 'Il', 'dort', 'va'), array([6, 3, 5], dtype=int32), '. va')

    Raises:
      ValueError: a word that stands twice, or one of the special ones.
    """

    words: tuple[str, ...]

    def __post_init__(self) -> None:
        if len({*self.words, *SPECIAL}) != len(self.words) + len(SPECIAL):
            raise ValueError(f"WordTokenizer got a word twice, or one of {', '.join(SPECIAL)}: expected each once")

    @classmethod
    def from_texts(cls, texts: Iterable[str], at_least: int = 1) -> "WordTokenizer":
        """The words that stand at least so many times in `texts`, sorted."""
        counts = Counter(word for text in texts for word in split_words(text))
        return cls(tuple(sorted(word for word, n in counts.items() if n >= at_least)))

    @property
    def vocab(self) -> int:
        return len(self.words) + len(SPECIAL)

    @property
    def pad(self) -> int:
        return 0

    @property
    def start(self) -> int:
        return 1

    @property
    def end(self) -> int:
        return 2

    @property
    def unknown(self) -> int:
        return 3

    def encode(self, text: str) -> np.ndarray:
        places = {word: i for i, word in enumerate(self.words, len(SPECIAL))}
        return np.array([places.get(word, self.unknown) for word in split_words(text)], np.int32)

    def decode(self, ids: Sequence[int] | np.ndarray) -> str:
        table = (*SPECIAL, *self.words)
        found = [int(i) for i in np.asarray(ids).ravel()]
        if found and not 0 <= min(found) <= max(found) < self.vocab:
            raise ValueError(f"decode got ids from {min(found)} to {max(found)}: expected 0 .. {self.vocab - 1}")
        return " ".join(table[i] for i in found if i >= self.unknown)

    def save(self, directory: str | Path) -> None:
        """Write it as `tokenizer.json`, for `load_tokenizer`."""
        text = json.dumps({"dlkit": "WordTokenizer", "words": self.words}, ensure_ascii=False)
        (Path(directory) / "tokenizer.json").write_text(text, encoding="utf-8")


def split_words(text: str) -> list[str]:
    return re.findall(r"\w+|[^\w\s]", text)
