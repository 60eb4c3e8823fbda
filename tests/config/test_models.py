"""The models that a config can name: what stands in front of them, what they are trained on, what does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import data, losses, models, nn
from dlkit.config import ConfigError, assemble, build, load
from dlkit.config.schema import Config


def config(model, data=None, loss="cross_entropy", **more):
    return Config.model_validate({
        "data": data or {"name": "digits"}, "model": model, "loss": {"name": loss},
        "optimizer": {"name": "adam", "learning_rate": 1e-3}, "train": {"epochs": 1, "batch_size": 16}, **more,
    })  # fmt: skip


def test_a_classic_network_takes_the_pictures_of_the_data():
    spec = {"name": "resnet18", "classes": 10, "options": {"width": 4, "blocks": (1, 1)}, "flip": True, "crop": 2}
    model = build.model(config(spec, {"name": "cifar10"}))
    assert list(model.children())[:4] == ["rescale", "flip", "crop", "conv"]
    assert model["conv"].c_in == 3
    assert build.model(config(spec))["conv"].c_in == 1  # digits are grey
    ti = {"name": "vit_ti_16", "options": {"patch": 4, "depth": 1}}
    assert build.model(config(ti))["positions"].n == 5


def test_an_unknown_option_is_an_error_of_the_config():
    with pytest.raises(ConfigError, match="model: the model 'vgg11' has no option 'witdh'"):
        build.model(config({"name": "vgg11", "options": {"witdh": 3}}))


def test_an_autoencoder_is_trained_on_its_input():
    parts = assemble.assemble(config({"name": "autoencoder", "widths": (8,), "latent": 2}, loss="binary_cross_entropy"))
    assert (parts.task.inputs, parts.task.targets) == ("x", "x")
    batch = {"x": jnp.asarray(parts.training.x[:4])}
    params = parts.task.model.init(jax.random.key(0))
    logits = parts.task.model.apply(params, None, batch["x"], nn.EVAL)[0]
    loss = parts.task.loss_fn(params, None, batch, nn.EVAL)[0]
    np.testing.assert_allclose(loss, losses.binary_cross_entropy(logits, batch["x"]).mean(), rtol=1e-6)


def test_bytes_are_rescaled_in_front_of_the_encoder_and_in_the_targets():
    task = assemble.task_of(config({"name": "vae", "widths": (8,), "latent": 2}, {"name": "mnist"}, "negative_elbo"))
    x = np.random.default_rng(0).integers(0, 256, (3, 28, 28, 1)).astype(np.uint8)
    params = task.model.init(jax.random.key(0))
    loss = task.loss_fn(params, None, {"x": jnp.asarray(x)}, nn.EVAL)[0]
    plain = models.vae((28, 28, 1), (8,), 2)
    params = {**params, "encoder": {k: v for k, v in params["encoder"].items() if k != "rescale"}}
    grey = jnp.asarray(x / np.float32(255))
    outputs = plain.apply(params, None, grey, nn.EVAL)[0]
    np.testing.assert_allclose(loss, losses.negative_elbo(outputs, grey).mean(), rtol=1e-5)


def test_a_diffusion_model_rescales_bytes_first():
    spec = {"name": "ddpm", "widths": (8,), "patch": 2, "steps": 10}
    task = assemble.task_of(config(spec, {"name": "mnist"}, "simple_diffusion"))
    assert task.model.front == nn.Chain(rescale=nn.Rescale(1 / 255))
    assert (task.model.shape, task.targets) == ((28, 28, 1), "x")


def test_where_mnist_is_missing_digits_take_its_place_if_the_config_says_so(tmp_path, monkeypatch):
    for name, value in {"DLKIT_DATA": tmp_path, "XDG_CACHE_HOME": tmp_path, "DLKIT_OFFLINE": "1"}.items():
        monkeypatch.setenv(name, str(value))
    model = {"name": "vae", "widths": (8,), "latent": 2}
    parts = assemble.assemble(config(model, {"name": "mnist", "fallback": True}, "negative_elbo"))
    assert parts.training.name == "digits"
    assert (parts.training.x.shape[1:], parts.training.x.dtype) == ((28, 28, 1), np.uint8)
    shown = parts.training.x[:, 2:26:3, 2:26:3] / 255
    digits = {row.tobytes() for row in (data.digits().x * 16).round().astype(np.uint8)}
    assert {row.tobytes() for row in (shown * 16).round().astype(np.uint8)} <= digits
    from dlkit.cli.report import header

    assert "note: MNIST is not here, so this runs on digits" in header(parts, "x.toml", tmp_path)
    with pytest.raises(data.DownloadError):
        assemble.assemble(config(model, {"name": "mnist"}, "negative_elbo"))


def test_where_cifar10_is_missing_digits_take_its_place_if_the_config_says_so(monkeypatch):
    monkeypatch.delenv("DLKIT_DATA", raising=False)
    spec = {"name": "resnet18", "options": {"width": 4, "blocks": (1, 1)}}
    parts = assemble.assemble(config(spec, {"name": "cifar10", "fallback": True}))
    assert (parts.training.name, parts.training.x.shape[1:], parts.training.x.dtype) == (
        "digits",
        (32, 32, 3),
        np.uint8,
    )
    from dlkit.cli.report import instead

    assert instead(parts) == "CIFAR-10"
    assert instead(assemble.assemble(config(spec))) is None
    with pytest.raises(ConfigError, match=r"looked for in no folder(.|\n)*data.fallback = true digits take"):
        assemble.assemble(config(spec, {"name": "cifar10"}))


def test_graphs_where_cora_is_missing(monkeypatch):
    monkeypatch.delenv("DLKIT_DATA", raising=False)
    parts = assemble.assemble(config({"name": "gcn"}, {"name": "cora", "fallback": True}, metrics=["accuracy"]))
    assert parts.task.model == models.NodeOutputs(models.gcn(34, 2))
    assert parts.task.inputs == ("x", "senders", "receivers")
    with pytest.raises(ConfigError, match=r"cora.npz was looked for in no folder.*data.fallback = true"):
        assemble.assemble(config({"name": "gcn"}, {"name": "cora"}))


@pytest.mark.parametrize(
    ("model", "data_", "loss", "message"),
    [
        ({"name": "gcn"}, {"name": "digits"}, "cross_entropy", "gcn wants a graph, but data is digits"),
        ({"name": "linear", "d_in": 3, "classes": 2}, {"name": "karate_club"}, "cross_entropy", "linear takes none"),
        ({"name": "vae"}, {"name": "digits"}, "mse", "mse does not go with the model vae"),
        ({"name": "vae"}, {"name": "digits"}, "simple_diffusion", "does not go with the model vae"),
        ({"name": "cnn", "input": (8, 8, 1), "classes": 10}, {"name": "digits"}, "negative_elbo", "does not go with"),
        (
            {"name": "vae", "input": (9, 9, 1)},
            {"name": "digits"},
            "negative_elbo",
            r"model.input: vae takes \[9, 9, 1\]",
        ),
    ],
)
def test_what_does_not_fit_is_an_error(model, data_, loss, message):
    with pytest.raises(ConfigError, match=message):
        assemble.assemble(config(model, data_, loss))


NAMES = {
    "vae_mnist": "vae",
    "ddpm_mnist": "ddpm",
    "digits_ddpm": "ddpm",
    "cora_gcn": "gcn",
    "cora_gat": "gat",
    "cora_sage": "graph_sage",
    "cifar_resnet20": "resnet20",
}


@pytest.mark.parametrize("name", NAMES)
def test_the_configs_of_the_repository_load(name, request):
    assert load(request.config.rootpath / "configs" / f"{name}.toml").model.name == NAMES[name]
