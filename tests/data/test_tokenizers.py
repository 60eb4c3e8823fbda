"""Tokenizers: round trips, and a `tokenizer.json` that Hugging Face's library has trained."""

import numpy as np
import pytest

from dlkit import data

TEXT = "so long, and thanks for all the fish: ünïcödé 🐟\n" * 3


@pytest.mark.parametrize("tokenizer", [data.CharTokenizer.from_text(TEXT), data.ByteTokenizer()], ids=["char", "byte"])
def test_round_trip(tokenizer, tmp_path):
    ids = tokenizer.encode(TEXT)
    assert ids.dtype == np.int32
    assert 0 <= ids.min() <= ids.max() < tokenizer.vocab
    assert tokenizer.decode(ids) == TEXT
    tokenizer.save(tmp_path)
    assert data.load_tokenizer(tmp_path) == tokenizer


def test_unknown_symbols_and_ids_are_named(tmp_path):
    with pytest.raises(ValueError, match="has no 'z'"):
        data.CharTokenizer("abc").encode("abz")
    with pytest.raises(ValueError, match=r"expected 0 .. 2"):
        data.CharTokenizer("abc").decode([3])
    with pytest.raises(ValueError, match="a symbol twice"):
        data.CharTokenizer("aa")
    with pytest.raises(FileNotFoundError, match=r"holds no tokenizer.json"):
        data.load_tokenizer(tmp_path)


def test_byte_pairs_of_a_trained_file(tmp_path):
    tokenizers = pytest.importorskip("tokenizers")
    theirs = tokenizers.Tokenizer(tokenizers.models.BPE())
    theirs.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    theirs.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=290, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet, show_progress=False
    )
    theirs.train_from_iterator([TEXT], trainer)
    theirs.save(str(tmp_path / "tokenizer.json"))
    ours = data.load_tokenizer(tmp_path)
    assert isinstance(ours, data.BPETokenizer)
    ids = ours.encode(TEXT)
    assert ids.tolist() == theirs.encode(TEXT).ids
    assert len(ids) < len(TEXT.encode())
    assert ours.decode(ids) == TEXT
    assert (ours.vocab, ours.id_of("<|endoftext|>"), ours.id_of("nope")) == (290, 0, None)
