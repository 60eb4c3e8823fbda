"""Text and pairs of sentences that a configuration names: their arrays, their tokenizer, and the models for them."""

import functools
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlkit import data, models, nn
from dlkit.config.errors import ConfigError
from dlkit.config.model_parts import ON_PAIRS, ON_TEXT
from dlkit.config.schema import Config, Pairs, Text
from dlkit.data.order import SPLIT, permutation
from dlkit.data.text import read_text
from dlkit.data.word_tokenizer import split_words

__all__ = ["PYTHON", "SYNTHETIC", "Corpus", "corpus", "language_model"]

PYTHON, SYNTHETIC = "python source", "number words"
"""What stands in where the data is missing, by the name that the dataset then has."""


@dataclass(frozen=True, eq=False)
class Corpus:
    """Train, validation and test sets, and the tokenizer that made them."""

    split: tuple[data.Arrays, data.Arrays | None, data.Arrays | None]
    tokenizer: Any


def corpus(config: Config) -> Corpus:
    """The text or the pairs of a configuration.

    Raises:
      ConfigError: it names other data, a file is missing or holds something else, or a part of it is too short.
    """
    spec = config.data
    if not isinstance(spec, Text | Pairs):
        wanted = "text" if config.model.name in ON_TEXT else "pairs"
        raise ConfigError(f"model: {config.model.name} wants data.name = {wanted!r}, but it is {spec.name!r}")
    masked = getattr(config.model, "masked", None)
    try:
        return _corpus(spec, config.seed, masked, os.environ.get("DLKIT_DATA"))  # pyright: ignore[reportArgumentType]
    except (ValueError, FileNotFoundError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"data: {error}") from None


@functools.lru_cache(maxsize=4)
def _corpus(spec: Text | Pairs, seed: int, masked: float | None, place: str | None) -> Corpus:
    """Read once for the model and for the data; `place` is DLKIT_DATA, which may change in one process."""
    return _text(spec, seed, masked) if isinstance(spec, Text) else _pairs(spec, seed)


def _text(spec: Text, seed: int, masked: float | None) -> Corpus:
    if spec.path is not None:
        text, name = read_text(Path(spec.path)), Path(spec.path).stem
    else:
        try:
            text, name = data.tiny_shakespeare(), "tiny-shakespeare"
        except FileNotFoundError as error:
            if not spec.fallback:
                raise ConfigError(
                    f"data: {error}; with data.fallback = true the source of Python's library takes its place"
                ) from None
            text, name = data.python_source(), PYTHON
    tokenizer = data.CharTokenizer.from_text(text)
    ids = tokenizer.encode(text)
    cut = len(ids) - round(spec.valid * len(ids))
    train = data.windows(ids[:cut], spec.length, spec.stride, name=name)
    valid = data.windows(ids[cut:], spec.length, name=name) if cut < len(ids) else None
    if spec.limit is not None and spec.limit < len(train):
        train = train.take(permutation(len(train), seed, 0, SPLIT)[: spec.limit])
    if masked is not None:
        train, valid = _masked(train, masked, 1), None if valid is None else _masked(valid, masked, 2)
    return Corpus((train, valid, None), tokenizer)


def _masked(windows: data.Arrays, share: float, stream: int) -> data.Arrays:
    """With the places that evaluation hides, and the text itself as the target."""
    n, length = windows.x.shape
    count = max(1, round(share * length))
    words = np.random.Philox(key=np.array([0, stream], np.uint64)).random_raw(n * length).reshape(n, length)
    hidden = words.argsort(1, kind="stable").argsort(1, kind="stable") < count
    return data.Arrays(name=windows.name, x=windows.x, masked=hidden, y=windows.x)


def _pairs(spec: Pairs, seed: int) -> Corpus:
    if spec.path is not None:
        pairs, name = data.read_pairs(spec.path), Path(spec.path).stem
    else:
        try:
            pairs, name = data.english_french(), "eng-fra"
        except FileNotFoundError as error:
            if not spec.fallback:
                raise ConfigError(f"data: {error}; with data.fallback = true number words take its place") from None
            pairs, name = data.number_words(), SYNTHETIC
    pairs = [pair for pair in pairs if max(len(split_words(side)) for side in pair) <= spec.length]
    sources = sorted({source for source, _ in pairs})
    order = [sources[i] for i in permutation(len(sources), seed, 0, SPLIT)]
    sizes = [round(n * len(order)) if isinstance(n, float) else n for n in (spec.test, spec.valid)]
    if sum(sizes) >= len(order):
        raise ValueError(f"{sizes[0]} sources for testing and {sizes[1]} for validation leave none of {len(order)}")
    place = {source: i for i, source in enumerate(order)}
    parts: tuple[list[tuple[str, str]], ...] = ([], [], [])
    for pair in sorted(pairs, key=lambda pair: place[pair[0]]):
        at = place[pair[0]]
        parts[2 if at < sizes[0] else 1 if at < sum(sizes) else 0].append(pair)
    train = parts[0][: spec.limit]
    tokenizer = data.WordTokenizer.from_texts(side for pair in train for side in pair)
    made = [data.pair_arrays(part, tokenizer, spec.length + 1, name) if part else None for part in parts[1:]]
    return Corpus((data.pair_arrays(train, tokenizer, spec.length + 1, name), made[0], made[1]), tokenizer)


def language_model(spec: Any, about: Any, tokenizer: Any) -> nn.Layer[Any, Any]:
    """The model of a section [model], for the data `about` and its tokenizer.

    Raises:
      ConfigError: the model does not go with the data, or refuses an option.
    """
    wanted = ON_TEXT if about.name == "text" else ON_PAIRS
    if spec.name not in wanted:
        raise ConfigError(f"model: {spec.name} does not go with the data {about.name}: expected {', '.join(wanted)}")
    options, vocab = spec.model_dump(exclude={"name", "masked"}), tokenizer.vocab
    try:
        if spec.name == "gpt":
            return models.create("gpt", vocab=vocab, length=about.length, **options)
        if spec.name == "bert":
            body = models.create("bert", vocab=vocab + 1, length=about.length, **options)
            return models.MaskedLM(body, vocab, spec.masked)
        made = models.create(spec.name, vocab=vocab, **options)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"model: {error}") from None
    return models.Translator(made, tokenizer.pad) if spec.name in ON_PAIRS else made
