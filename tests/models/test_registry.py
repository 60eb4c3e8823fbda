"""Models by name, looking into them, and other heads."""

import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import models, nn, tree
from dlkit.config import model_parts
from dlkit.models.language.presets import LANGUAGE

KEY = jax.random.key(0)
NET = nn.Chain(
    stem=nn.Linear(3, 4), blocks=nn.Stack(nn.Residual(nn.Chain(nn.Linear(4, 4), nn.Tanh())), 3), head=nn.Linear(4, 2)
)


def test_list_is_sorted_and_takes_globs():
    assert models.list() == sorted(models.list())
    assert models.list("resnet1*") == ["resnet101", "resnet152", "resnet18"]
    assert models.list("nothing") == []


def test_create_gives_what_the_recipe_gives():
    assert models.create("vgg13_bn", classes=3) == models.vgg(13, 3, norm=True)
    assert models.create("mlp", widths=(3, 2)) == models.mlp((3, 2))


# As published with each model (of Whisper the encoder alone, as transformers counts it).
COUNTS = {
    "gpt2": 124_439_808, "gpt2_medium": 354_823_168, "gpt2_large": 774_030_080, "gpt2_xl": 1_557_611_200,
    "llama2_7b": 6_738_415_616, "llama3_8b": 8_030_261_248, "bert_base": 109_514_298, "bert_large": 335_174_458,
    "t5_small": 60_506_624, "t5_base": 222_903_552, "t5_large": 737_668_096, "whisper_tiny_encoder": 8_208_384,
    "whisper_base_encoder": 20_590_592, "whisper_small_encoder": 88_154_112,
}  # fmt: skip


def test_language_models_are_as_large_as_published():
    found = {name: tree.count(jax.eval_shape(models.create(name).init, KEY)) for name in COUNTS}
    assert found == COUNTS
    assert COUNTS.keys() == LANGUAGE.keys() - {"gpt", "llama", "bert", "t5", "whisper_encoder", "rnn_lm", "seq2seq"}


def test_language_models_take_other_sizes():
    assert models.create("gpt2", vocab=65, d=32, heads=4) == models.gpt(65, 1024, 32, 4, 12)
    assert models.create("llama", vocab=65, d=32, heads=4, depth=2) == models.llama(65, 32, 4, 2)


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("resnet19", {}, ValueError, "no model 'resnet19'; did you mean 'resnet1"),
        ("zzz", {}, ValueError, "no model 'zzz'; there are alexnet, autoencoder"),
        ("resnet18", {"clases": 3}, TypeError, "no option 'clases': it has classes, blocks"),
        ("vgg11", {"norm": True}, TypeError, "no option 'norm'"),
        ("mlp", {}, TypeError, "wants widths"),
        ("gpt", {"vocab": 5}, TypeError, "wants length, d, heads, depth"),
    ],
)
def test_create_says_what_is_wrong(name, options, error, message):
    with pytest.raises(error, match=message):
        models.create(name, **options)


def test_configs_know_the_models_for_pictures():
    named = set(typing.get_args(model_parts.Classic.model_fields["name"].annotation))
    own = {"linear", "mlp", "cnn", "resnet20", "unet", *model_parts.REBUILD, "gcn", "gat", "graph_sage", *LANGUAGE}
    assert named == set(models.list()) - own


def test_features_are_the_outputs_on_the_way():
    params, x = NET.init(KEY), jnp.ones((5, 3))
    run = jax.jit(lambda p, x: models.features(NET, p, None, x, ["stem", "blocks/body/tanh1", "head"]))
    found = run(params, x)
    assert set(found) == {"stem", "blocks/body/tanh1", "head"}  # jit sorts a dict
    h = NET["stem"](params["stem"], x)
    np.testing.assert_allclose(found["stem"], h, rtol=1e-6)
    for i, inner in enumerate(found["blocks/body/tanh1"]):  # the blocks of a stack share a path
        p = jax.tree.map(lambda a, i=i: a[i], params["blocks"]["body"]["linear1"])
        np.testing.assert_allclose(inner, jnp.tanh(h @ p["w"] + p["b"][None]), rtol=1e-5)
        h = h + inner
    np.testing.assert_allclose(found["head"], NET(params, x), rtol=1e-5)


def test_features_have_gradients_and_see_training():
    model = nn.Chain(nn.Linear(3, 4), nn.Dropout(0.5), head=nn.Linear(4, 2))
    params = model.init(KEY)

    def loss(params):
        return models.features(model, params, None, jnp.ones((1, 3)), "dropout1", nn.training(KEY))["dropout1"].sum()

    grads = jax.grad(loss)(params)
    assert jnp.abs(grads["linear1"]["w"]).sum() > 0
    assert jnp.abs(grads["head"]["w"]).sum() == 0


def test_features_of_a_classic_network_by_stage():
    model = models.resnet(18, 4, blocks=(1, 1), width=4)
    params, state = jax.eval_shape(model.init, KEY), jax.eval_shape(model.init_state)
    x = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)
    found = jax.eval_shape(lambda *a: models.features(model, *a, at="stage*"), params, state, x)
    assert {path: y.shape for path, y in found.items()} == {"stage1": (2, 8, 8, 4), "stage2": (2, 4, 4, 8)}


def test_features_say_what_there_is_where_nothing_matches():
    with pytest.raises(ValueError, match=r"'stage3' matches none of the .* paths; near it: .*stem"):
        models.features(NET, NET.init(KEY), None, jnp.ones((5, 3)), ["stem", "stage3"])


def test_listening_ends_with_features():
    """A model that is run later, by itself, is not listened to."""
    params = NET.init(KEY)
    found = models.features(NET, params, None, jnp.ones((5, 3)), "stem")
    NET(params, jnp.ones((5, 3)))
    assert list(found) == ["stem"]


def test_with_head_replaces_the_last_layer_and_nothing_else():
    new = models.with_head(NET, 7)
    assert new["head"] == nn.Linear(4, 7)
    assert new["blocks"] is NET["blocks"]
    assert models.with_head(NET, nn.Identity())["head"] == nn.Identity()
    both = models.with_head(models.inception_v1(10, aux=True, width=1 / 16), 3)
    assert both == models.inception_v1(3, aux=True, width=1 / 16)
    with pytest.raises(ValueError, match="matches none"):
        models.with_head(nn.Chain(nn.Linear(3, 4)), 7)
    with pytest.raises(TypeError, match="stem is Relu"):
        models.with_head(nn.Chain(stem=nn.Relu()), 7, at="stem")
