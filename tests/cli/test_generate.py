"""`dlkit generate` on a directory of Hugging Face's kind."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import data, io, models
from dlkit.cli import main

CONFIG = {
    "model_type": "gpt2", "vocab_size": 256, "n_positions": 32, "n_embd": 16, "n_head": 2, "n_layer": 2,
    "eos_token_id": 255,
}  # fmt: skip


@pytest.fixture
def folder(tmp_path, key):
    model = io.model_from_config(CONFIG)
    params = model.init(key)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    io.write_tensors(tmp_path / "model.safetensors", io.to_hugging_face(CONFIG, model, params))
    data.ByteTokenizer().save(tmp_path)
    return tmp_path


def test_text_from_a_directory(folder, key, capsys):
    args = ["generate", str(folder), "--prompt", "ab", "--tokens", "6"]
    assert main([*args, "--greedy", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)["samples"][0]
    model = io.model_from_config(CONFIG)
    ids = jnp.asarray(data.ByteTokenizer().encode("ab"))[None]
    best = models.generate(model, model.init(key), ids, 6, end=255)
    assert told["text"] == data.ByteTokenizer().decode(np.asarray(best)[0])
    assert told["tokens"] == 6
    assert main([*args, "--top-k", "5", "--min-p", "0.01", "--seed", "3"]) == 0
    out = capsys.readouterr()
    assert out.out.startswith("ab")
    assert "tokens/s" in out.err
    assert main([*args, "--beams", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["samples"][0]["tokens"] <= 6


def test_what_cannot_be_is_said(folder, capsys):
    assert main(["generate", str(folder)]) != 0
    assert "the prompt is empty" in capsys.readouterr().err
    assert main(["generate", str(folder), "--prompt", "a", "--tokens", "99"]) != 0
    assert "the model has positions for 32" in capsys.readouterr().err
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    assert main(["generate", str(folder), "--prompt", "a"]) != 0
    assert "is a pickle" in capsys.readouterr().err
