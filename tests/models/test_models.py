"""The recipes: parameters counted by hand, shapes, and that they are what they say."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dlkit import losses, models, nn, tree
from dlkit.testing import check_layer


def count(model) -> int:
    return tree.count(jax.eval_shape(model.init, jax.random.key(0)))


def out_shape(model, shape) -> tuple[int, ...]:
    params, state = jax.eval_shape(model.init, jax.random.key(0)), jax.eval_shape(model.init_state)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    return jax.eval_shape(lambda p, s, x: model.apply(p, s, x, nn.EVAL)[0], params, state, x).shape


@pytest.mark.parametrize(
    ("model", "parameters", "x", "y"),
    [
        (models.linear(64, 10), 650, (3, 64), (3, 10)),
        (models.mlp((784, 512, 256, 10)), 785 * 512 + 513 * 256 + 257 * 10, (3, 784), (3, 10)),
        (models.mlp((5, 7, 2), norm="batch"), 6 * 7 + 14 + 8 * 2, (3, 5), (3, 2)),
        (models.mlp((5, 7, 2), "gelu", 0.5, "layer"), 6 * 7 + 14 + 8 * 2, (3, 5), (3, 2)),
        (models.mlp((5, 2)), 12, (3, 5), (3, 2)),
        (models.cnn((8, 8, 1), 10, (16, 32)), 160 + 4640 + 1290, (3, 8, 8, 1), (3, 10)),
        (
            models.cnn((9, 8, 3), 4, (6, 5), hidden=7, convs=2, kernel=5, norm="batch", dropout=0.5),
            25 * (3 * 6 + 6 * 6 + 6 * 5 + 5 * 5) + 2 * (6 + 6 + 5 + 5) + (2 * 2 * 5 + 1) * 7 + 8 * 4,
            (3, 9, 8, 3),
            (3, 4),
        ),
        (models.resnet20(), 269_722, (3, 32, 32, 3), (3, 10)),
        (models.resnet20(100), 269_722 + 90 * 65, (3, 32, 32, 3), (3, 100)),
    ],
)
def test_parameters_and_shapes(model, parameters, x, y):
    assert count(model) == parameters
    assert out_shape(model, x) == y


def test_resnet20_has_20_weight_layers_and_the_papers_shapes():
    params = jax.eval_shape(models.resnet20().init, jax.random.key(0))
    kernels = [leaf.shape for path, leaf in tree.flatten(params).items() if path.endswith("/w")]
    assert len(kernels) == 20
    assert sorted({shape[-1] for shape in kernels}) == [10, 16, 32, 64]


def test_pad_shortcut_keeps_old_channels_in_the_middle():
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    y = models.PadShortcut(3, 8, 2)({}, jnp.asarray(x))
    np.testing.assert_array_equal(y[..., 2:5], x[:, ::2, ::2])
    assert float(jnp.abs(y).sum()) == pytest.approx(float(np.abs(x[:, ::2, ::2]).sum()))
    with pytest.raises(ValueError, match="adds channels"):
        models.PadShortcut(4, 2)


def test_pad_shortcut_has_the_properties_of_a_layer():
    check_layer(models.PadShortcut(2, 4, 2), jax.random.normal(jax.random.key(0), (2, 4, 4, 2)))


def test_the_parts_of_vision_transformers_and_of_branches_have_the_properties_of_a_layer():
    tokens = nn.Chain(models.ClassToken(4), models.ImagePositions(6, 4), models.First(), nn.Linear(4, 3))
    # The token starts at 0 and positions near it, so what the first token gives is small at first.
    check_layer(tokens, jax.random.normal(jax.random.key(0), (2, 5, 4)), skip=["fresh scale"])
    branches = models.Branches(nn.Identity(), nn.Chain(nn.Linear(4, 3), nn.BatchNorm(3)), nn.Dropout(0.5))
    check_layer(branches, jax.random.normal(jax.random.key(0), (6, 4)))


def test_heads_of_training_are_in_the_loss_and_in_no_output_of_evaluation():
    model = models.AuxHeads((nn.Linear(3, 4), nn.Linear(4, 2)), (nn.Linear(4, 2),))
    params, x, y = model.init(jax.random.key(0)), jax.random.normal(jax.random.key(1), (5, 3)), jnp.arange(5) % 2
    h = nn.Linear(3, 4)(params["body"][0], x)
    main, aside = nn.Linear(4, 2)(params["body"][1], h), nn.Linear(4, 2)(params["aux"][0], h)
    loss = losses.AuxLoss(weight=0.3)
    want = losses.cross_entropy(main, y) + 0.3 * losses.cross_entropy(aside, y)
    np.testing.assert_allclose(loss(model.apply(params, None, x, nn.training(None))[0], y), want, rtol=1e-6)
    calm, _ = model.apply(params, None, x, nn.EVAL)
    np.testing.assert_array_equal(calm, main)
    np.testing.assert_array_equal(loss(calm, y), losses.cross_entropy(main, y))


def test_what_the_parts_refuse():
    with pytest.raises(ValueError, match=r"got x of shape \(2, 5, 4\): expected \[B, 6, 4\]; is the picture"):
        models.ImagePositions(6, 4)({"table": jnp.zeros((1, 6, 4))}, jnp.zeros((2, 5, 4)))
    layer = models.Branches(nn.Identity(), nn.MaxPool(2))
    with pytest.raises(ValueError, match=r"stand side by side .*\(1, 4, 4, 2\), \(1, 2, 2, 2\)"):
        layer.apply(layer.init(jax.random.key(0)), None, jnp.ones((1, 4, 4, 2)), nn.EVAL)
    with pytest.raises(ValueError, match="2 pieces want 1 heads, got 0"):
        models.AuxHeads((nn.Identity(), nn.Identity()), ())
    with pytest.raises(ValueError, match="depths 18, 34, 50, 101, 152, got 20"):
        models.resnet(20)
    with pytest.raises(ValueError, match="depths 11, 13, 16, 19, got 12"):
        models.vgg(12)
    with pytest.raises(ValueError, match="16 x 16, which do not fit"):
        models.vit(image=30)
    with pytest.raises(ValueError, match="multiples of 4, got 6 x 8"):
        models.conv_autoencoder((6, 8, 1))


def test_dropout_and_batch_norm_act_in_training_only():
    model = models.cnn((4, 4, 2), 3, (4,), hidden=5, dropout=0.5, norm="batch")
    params, state = model.init(jax.random.key(0)), model.init_state()
    x = jax.random.normal(jax.random.key(1), (8, 4, 4, 2))
    once, after = model.apply(params, state, x, nn.training(jax.random.key(2)))
    again, _ = model.apply(params, state, x, nn.training(jax.random.key(3)))
    assert not np.allclose(once, again)
    assert tree.flatten(after).keys() == {"batch_norm1/mean", "batch_norm1/var"}
    calm, same = model.apply(params, after, x, nn.EVAL)
    np.testing.assert_array_equal(calm, model.apply(params, after, x, nn.EVAL)[0])
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), after, same)))


def test_linear_starts_at_log_classes_and_its_gradient_is_that_of_logistic_regression():
    model = models.linear(4, 3)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 4)).astype(np.float32), rng.integers(0, 3, 6)

    def loss(params):
        return losses.cross_entropy(model(params, jnp.asarray(x)), jnp.asarray(y)).mean()

    value, grads = jax.value_and_grad(loss)(model.init(jax.random.key(0)))
    assert float(value) == pytest.approx(np.log(3), rel=1e-6)
    closed = x.T @ (np.full((6, 3), 1 / 3) - np.eye(3)[y]) / 6
    np.testing.assert_allclose(grads["head"]["w"], closed, atol=1e-6)


def test_errors_name_what_is_wrong():
    with pytest.raises(ValueError, match=r"at least two widths.*\(5,\)"):
        models.mlp((5,))
    with pytest.raises(ValueError, match="no activation 'rel'"):
        models.mlp((5, 4, 3), activation="rel")
    with pytest.raises(ValueError, match="no norm 'group'"):
        models.mlp((5, 4, 3), norm="group")
    with pytest.raises(ValueError, match="at least 16, got 8 x 8"):
        models.cnn((8, 8, 1), 10, (4, 4, 4, 4))
