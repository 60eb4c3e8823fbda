"""Windows of text, pairs and words as data, and BLEU of what becomes of them."""

import math

import numpy as np
import pytest

from dlkit import data, metrics
from dlkit.config import assemble
from dlkit.config.schema import Config


def config(spec, model="gpt", **more):
    return Config.model_validate({
        "data": spec, "model": {"name": model}, "loss": {"name": "cross_entropy"},
        "optimizer": {"name": "adam", "learning_rate": 1e-3}, "train": {"epochs": 1, "batch_size": 4}, **more,
    })  # fmt: skip


def test_windows_are_the_text_in_pieces():
    ids = np.arange(100, dtype=np.int32)
    pieces = data.windows(ids, 8)
    assert np.concatenate(pieces.x).tolist() == list(range(96))  # every token once
    assert (pieces.y == pieces.x + 1).all()
    assert data.windows(ids, 8, 4).x[:, 0].tolist() == list(range(0, 92, 4))
    with pytest.raises(ValueError, match="at least 9 tokens"):
        data.windows(ids[:8], 8)


def test_the_order_of_the_windows_depends_on_seed_epoch_and_index_alone():
    def batch(seed, epoch, index):
        return data.Loader(data.windows(np.arange(400), 4), 8, seed=seed).batch(epoch, index)["x"].tolist()

    walked = list(data.Loader(data.windows(np.arange(400), 4), 8, seed=1).epoch(2))
    assert walked[3]["x"].tolist() == batch(1, 2, 3)  # met on the way, or asked for alone
    assert len({str(batch(*at)) for at in ((1, 2, 3), (1, 2, 4), (1, 3, 3), (2, 2, 3))}) == 4


def test_the_text_of_a_config_is_cut_before_it_is_shuffled(tmp_path):
    text = "".join(chr(ord("a") + i // 100) for i in range(2000))  # 20 letters, one after another
    (tmp_path / "t.txt").write_text(text)
    spec = {"name": "text", "path": str(tmp_path / "t.txt"), "length": 9}
    train, valid, test = assemble.datasets(config(spec))
    assert (train.x.max(), valid.x.min(), valid.x.max(), test) == (17, 18, 19, None)
    assert assemble.datasets(config({**spec, "limit": 5}, seed=3))[0].x.shape == (5, 9)
    masked = assemble.datasets(config(spec, "bert"))[1]
    assert set(masked.masked.sum(1)) == {1}  # 15 % of 9
    assert (masked.y == masked.x).all()


def test_one_source_is_in_one_part_alone(tmp_path):
    lines = [f"say {word}\tdis {word} {i}" for i in range(3) for word in "abcdefghijklmnopqrst"]
    (tmp_path / "p.tsv").write_text("\n".join(lines) + "\nfar too long to be kept\tx\n")
    spec = {"name": "pairs", "path": str(tmp_path / "p.tsv"), "length": 4, "valid": 0.2, "test": 0.2}
    parts = assemble.datasets(config(spec, "t5"))
    sources = [{tuple(row) for row in part.source.tolist()} for part in parts]
    assert [len(part) for part in parts] == [36, 12, 12]
    # Letters that training has not seen are all <unk>: in each other part one source is left.
    assert [len(found) for found in sources] == [12, 1, 1]
    train = parts[0]
    assert (train.x[:, 0] == 1).all()
    assert (train.y[:, 3] == 2).all()
    assert train.weight[0].tolist() == [1, 1, 1, 1, 0]
    (tmp_path / "bad.tsv").write_text("a\tb\nonly one\n")
    with pytest.raises(ValueError, match=r"bad.tsv:2: expected two columns"):
        data.read_pairs(tmp_path / "bad.tsv")


def test_words_survive_saving(tmp_path):
    tokenizer = data.WordTokenizer.from_texts(["Ça va ?", "Ça ne va pas."], at_least=2)
    assert tokenizer.words == ("va", "Ça")
    tokenizer.save(tmp_path)
    assert data.load_tokenizer(tmp_path) == tokenizer
    with pytest.raises(ValueError, match="a word twice"):
        data.WordTokenizer(("a", "a"))


FRENCH = {
    17: "dix sept", 21: "vingt et un", 71: "soixante et onze", 80: "quatre vingts", 81: "quatre vingt un",
    91: "quatre vingt onze", 99: "quatre vingt dix neuf", 100: "cent", 200: "deux cents", 201: "deux cent un",
    1000: "mille", 1999: "mille neuf cent quatre vingt dix neuf", 2080: "deux mille quatre vingts",
}  # fmt: skip


def test_numbers_in_french_words():
    """The rules of the grammars, each by an example."""
    from dlkit.data.pairs import _english, _french

    assert {n: _french(n) for n in FRENCH} == FRENCH
    assert _english(2080) == "two thousand eighty"
    assert len({french for _, french in data.number_words(10_000)}) == 10_000


def test_bleu():
    people = [[["a", "b", "c", "d", "e", "f"]], [["x", "y", "z", "w"], ["x", "y"]]]
    assert metrics.bleu([one[0] for one in people], people) == 1.0
    # By hand: 1-grams 4 of 4, 2-grams 2 of 3; the reference is 5 long: exp(1 - 5/4).
    got = metrics.bleu([["a", "b", "c", "e"]], [[["a", "b", "c", "d", "e"]]], order=2)
    np.testing.assert_allclose(got, math.exp(1 - 5 / 4) * math.sqrt(2 / 3), rtol=1e-12)
    assert metrics.bleu([["a", "b"]], [[["a", "b", "c"]]]) == 0.0  # no run of three
    with pytest.raises(ValueError, match="expected equally many"):
        metrics.bleu([["a"]], [])


def test_bleu_equals_sacrebleu():
    sacrebleu = pytest.importorskip("sacrebleu")
    rng = np.random.default_rng(0)
    draw = lambda: [str(i) for i in rng.integers(0, 4, rng.integers(4, 12))]  # noqa: E731
    candidates, people = [draw() for _ in range(20)], [[draw(), draw()] for _ in range(20)]
    texts = [[" ".join(one[k]) for one in people] for k in range(2)]
    theirs = sacrebleu.corpus_bleu([" ".join(c) for c in candidates], texts, smooth_method="none", tokenize="none")
    np.testing.assert_allclose(100 * metrics.bleu(candidates, people), theirs.score, rtol=1e-10)
