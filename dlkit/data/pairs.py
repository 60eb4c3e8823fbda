"""Pairs of sentences to translate: English and French from tatoeba.org, number words, and their arrays."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dlkit.data.dataset import Arrays
from dlkit.data.order import permutation
from dlkit.data.places import find
from dlkit.data.text import read_text
from dlkit.data.word_tokenizer import WordTokenizer

__all__ = ["english_french", "number_words", "pair_arrays", "read_pairs"]

PAIRS = 3  # what the order of the number words is drawn for: see dlkit.data.order


def english_french(root: str | os.PathLike[str] | None = None) -> list[tuple[str, str]]:
    """English sentences and their French translations, shortest first; one sentence may have several.

    Read from `eng-fra.tsv` in `root`, `$DLKIT_DATA/eng_fra` or `$DLKIT_DATA`. Nothing is downloaded.

    Raises:
      FileNotFoundError: there is no such file; the message lists the places.
    """
    return read_pairs(find("eng-fra.tsv", "eng_fra", root, fix="Put it there, or give root="))


def read_pairs(path: str | os.PathLike[str]) -> list[tuple[str, str]]:
    """The first two columns of a file of UTF-8, a tab between them; further columns are not read.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line has no two columns, or the file is empty or no UTF-8.
    """
    found = []
    for number, line in enumerate(read_text(Path(path)).splitlines(), 1):
        if not line.strip():
            continue
        columns = line.split("\t")
        if len(columns) < 2:
            raise ValueError(f"{path}:{number}: expected two columns with a tab between them, got {line[:60]!r}")
        found.append((columns[0], columns[1]))
    return found


_ENGLISH = [
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
    "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
]  # fmt: skip
_TENS = ["twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]
_FRENCH = [
    "zéro", "un", "deux", "trois", "quatre", "cinq", "six", "sept", "huit", "neuf", "dix", "onze", "douze", "treize",
    "quatorze", "quinze", "seize",
]  # fmt: skip
_DIZAINES = ["vingt", "trente", "quarante", "cinquante", "soixante"]


def _english(n: int) -> str:
    if n < 20:
        return _ENGLISH[n]
    if n < 100:
        return _TENS[n // 10 - 2] + (f" {_ENGLISH[n % 10]}" if n % 10 else "")
    name, size = ("thousand", 1000) if n >= 1000 else ("hundred", 100)
    return f"{_english(n // size)} {name}" + (f" {_english(n % size)}" if n % size else "")


def _french(n: int) -> str:
    if n <= 16:
        return _FRENCH[n]
    if n < 20:
        return f"dix {_FRENCH[n - 10]}"
    if n < 70:
        ten, one = _DIZAINES[n // 10 - 2], n % 10
        return ten if not one else f"{ten} et un" if one == 1 else f"{ten} {_FRENCH[one]}"
    if n < 80:
        return "soixante et onze" if n == 71 else f"soixante {_french(n - 60)}"
    if n < 100:
        return "quatre vingts" if n == 80 else f"quatre vingt {_french(n - 80)}"
    name, size = ("mille", 1000) if n >= 1000 else ("cent", 100)
    many, rest = divmod(n, size)
    # Several whole hundreds have a plural, thousands never.
    head = name if many == 1 else f"{_french(many)} {name}{'s' if size == 100 and not rest else ''}"
    return head + (f" {_french(rest)}" if rest else "")


def number_words(n: int = 5000) -> list[tuple[str, str]]:
    """`n` of the numbers below 10,000 in English and French words, in a fixed order: pairs that need no file.

    Written without hyphens. French counts in twenties from 70 to 99, so words do not match one to one.

    >>> number_words(1)
    [('three thousand eight hundred thirty four', 'trois mille huit cent trente quatre')]

    Raises:
      ValueError: `n` outside 1 .. 10,000.
    """
    if not 1 <= n <= 10_000:
        raise ValueError(f"number_words got n={n}: expected 1 .. 10000")
    return [(_english(int(i)), _french(int(i))) for i in permutation(10_000, 0, 0, PAIRS)[:n]]


def pair_arrays(pairs: Sequence[tuple[str, str]], tokenizer: WordTokenizer, length: int, name: str | None) -> Arrays:
    """Pairs as arrays of width `length`: `source`, `x` and `y` (int32), and `weight` (float32).

    A source ends with `<end>`; x begins with `<start>`, and y is x one token later, `<end>` last. What is left is
    `<pad>`, where y's weight is 0.

    Raises:
      ValueError: a sentence of more than `length - 1` tokens.
    """
    n, pad = len(pairs), tokenizer.pad
    source, x, y = (np.full((n, length), pad, np.int32) for _ in range(3))
    for i, (left, right) in enumerate(pairs):
        a, b = tokenizer.encode(left), tokenizer.encode(right)
        if max(len(a), len(b)) >= length:
            raise ValueError(f"pair_arrays got a sentence of {max(len(a), len(b))} tokens: expected below {length}")
        source[i, : len(a) + 1] = [*a, tokenizer.end]
        x[i, : len(b) + 1] = [tokenizer.start, *b]
        y[i, : len(b) + 1] = [*b, tokenizer.end]
    return Arrays(name=name, source=source, x=x, y=y, weight=(y != pad).astype(np.float32))
