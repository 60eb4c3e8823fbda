"""Runs on text and pairs from the configs of the repository, made small: what they say, save, and continue."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import data, nn
from dlkit.cli import main
from dlkit.cli.text import baselines
from dlkit.config import load
from dlkit.config.language import language_model
from dlkit.train import load_model

SMALL = ("train.tensorboard=false", "train.plots=false", "data.limit=40", "train.epochs=1", "train.batch_size=20")


@pytest.fixture
def trained(request, tmp_path, monkeypatch, capsys):
    """Trains a config with overrides, without the real data; returns the folder and what was said."""
    monkeypatch.delenv("DLKIT_DATA", raising=False)
    monkeypatch.chdir(tmp_path)

    def train(name, *overrides):
        path = request.config.rootpath / "configs" / f"{name}.toml"
        assert main(["train", str(path), "--run-dir", "run", *SMALL, *overrides]) == 0
        return tmp_path / "run", capsys.readouterr().out

    return train


def short(tmp_path, text="to be or not to be, that is the question. " * 40):
    (tmp_path / "text.txt").write_text(text)
    return 'data.path="text.txt"'


def test_a_character_model_trains_and_goes_on_as_the_model_alone_would(trained, tmp_path, capsys):
    small = ("model.d=8", "model.heads=2", "model.depth=1", "data.length=16")
    folder, said = trained("shakespeare_gpt", *small)
    assert "note: tiny-shakespeare is not here, so this runs on python source instead (data.fallback)" in said
    told = json.loads((folder / "result.json").read_text())["text"]["valid"]
    assert 0 < told["loss"] < 10
    assert len((folder / "sample.txt").read_text()) == 16
    assert main(["generate", str(folder), "--prompt", "def ", "--tokens", "8", "--greedy", "--json"]) == 0
    text = json.loads(capsys.readouterr().out)["samples"][0]["text"]
    tokenizer, config = data.load_tokenizer(folder), load(folder / "config.toml")
    model = language_model(config.model, config.data, tokenizer)
    params, _ = load_model(folder, model)
    ids = tokenizer.encode("def ")
    for _ in range(8):  # without a cache
        logits = model.apply(params, None, jnp.asarray(ids)[None], nn.EVAL)[0]
        ids = np.append(ids, np.int32(logits[0, -1].argmax()))
    assert text == tokenizer.decode(ids[4:])


@pytest.mark.parametrize(
    ("name", "small"),
    [
        ("shakespeare_char_lstm", ("model.d=8", "model.depth=1")),
        pytest.param("shakespeare_char_lstm", ("model.d=8", "model.cell=gru"), marks=pytest.mark.thorough),
        pytest.param("shakespeare_gpt_gpu", ("model.d=8", "model.heads=2", "model.depth=1"),
                     marks=pytest.mark.thorough),
        pytest.param("shakespeare_llama", ("model.d=8", "model.heads=2", "model.depth=1", "model.kv_heads=1",
                                           "model.hidden=8"), marks=pytest.mark.thorough),
    ],
)  # fmt: skip
def test_the_other_character_models_train(trained, tmp_path, name, small):
    folder, said = trained(name, *small, short(tmp_path), "data.length=8")
    assert "note: " not in said.split("config ")[1]  # a text of one's own: nothing takes its place
    assert data.load_tokenizer(folder).symbols == " ,.abehinoqrstu"


def test_bert_is_measured_beside_what_counting_gives(trained, tmp_path):
    small = ("model.d=8", "model.heads=2", "model.depth=1", "data.length=16")
    folder, said = trained("shakespeare_bert", *small, short(tmp_path))
    told = json.loads((folder / "result.json").read_text())["text"]
    assert "%  this model" in said
    assert (
        0
        < told["baselines"]["the most frequent character"]
        < told["baselines"]["the likeliest one between both neighbours"]
    )


def test_baselines_count_what_they_say():
    # 0 is most frequent; after 1 always comes 2; between 1 and 0 stands 2.
    text = np.array([[0, 0, 0, 1, 2, 0, 0]], np.int32)
    held = {"x": np.array([[1, 2, 0, 0]], np.int32), "masked": np.array([[False, True, True, False]])}
    shares = list(baselines(text, held).values())
    assert shares == [0.5, 1.0, 1.0]


@pytest.mark.parametrize("name", ["eng_fra_seq2seq", pytest.param("eng_fra_transformer", marks=pytest.mark.thorough)])
def test_a_translator_trains_translates_and_answers(trained, tmp_path, name, capsys):
    small = ("model.d=8", "data.length=10", *(["model.heads=2", "model.depth=1"] * (name != "eng_fra_seq2seq")))
    (tmp_path / "pairs.tsv").write_text("".join(f"{a}\t{b}\n" for a, b in data.number_words(120)), encoding="utf-8")
    folder, said = trained(name, *small, 'data.path="pairs.tsv"', "train.plots=true")
    told = json.loads((folder / "result.json").read_text())["text"]
    assert set(told["test"]) == {"bleu", "exact", "sources"}
    assert "BLEU" in said
    assert (folder / "attention.png").exists() == (name == "eng_fra_seq2seq")
    words = set(data.load_tokenizer(folder).words) | {"<unk>"}
    for how in ("--greedy", "--beams=2"):
        assert main(["generate", str(folder), "--prompt", "two hundred", "--tokens", "6", how, "--json"]) == 0
        sample = json.loads(capsys.readouterr().out)["samples"][0]
        assert set(sample["text"].split()) <= words


def test_what_does_not_fit_is_said(request, capsys, monkeypatch):
    monkeypatch.delenv("DLKIT_DATA", raising=False)
    configs = request.config.rootpath / "configs"
    assert main(["train", str(configs / "shakespeare_gpt.toml"), "data.fallback=false"]) == 2
    assert "looked for in no folder" in capsys.readouterr().err
    assert main(["summary", str(configs / "digits_mlp.toml"), "model={name='gpt'}"]) == 2
    assert "gpt wants data.name = 'text', but it is 'digits'" in capsys.readouterr().err
    assert main(["summary", str(configs / "eng_fra_seq2seq.toml"), "model={name='llama'}"]) == 2
    assert "llama does not go with the data pairs: expected seq2seq, t5" in capsys.readouterr().err
