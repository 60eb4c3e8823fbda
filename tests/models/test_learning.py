"""Every family, in its smallest form: it fits one batch, its gradient reaches every leaf, its step is traced once."""

import os

import jax
import numpy as np
import pytest

from dlkit import data, losses, models, optim, train, tree

RNG = np.random.default_rng(0)
Y = np.arange(8, dtype=np.int32) % 4


def pictures(side):
    return RNG.standard_normal((8, side, side, 3)).astype(np.float32)


GRAPH = data.karate_club()[0]
NODES = {k: GRAPH[k] for k in ("x", "senders", "receivers", "y")}
ON_NODES = {"inputs": ("x", "senders", "receivers"), "loss": losses.cross_entropy}
GREY = {"x": RNG.random((8, 8, 8, 1), np.float32)}
REBUILD = {"inputs": "x", "targets": "x"}
# model, batch, what the task is beside, the share of the first loss that is to be left after 40 steps
CASES = {
    "resnet18": (models.resnet(18, 4, blocks=(1, 1), width=4), {"x": pictures(8), "y": Y}, {}, 0.2),
    "resnet50": (models.resnet(50, 4, blocks=(1,), width=4), {"x": pictures(8), "y": Y}, {}, 0.2),
    "vgg": (
        models.vgg(11, 4, norm=True, widths=(4, 4, 4, 4, 8), hidden=16, grid=1, dropout=0.0),
        {"x": pictures(32), "y": Y}, {}, 0.2,
    ),
    "alexnet": (
        models.alexnet(4, widths=(8, 8, 8, 8, 8), hidden=16, grid=1, dropout=0.0), {"x": pictures(63), "y": Y}, {}, 0.2,
    ),
    "mobilenet_v2": (
        models.mobilenet_v2(4, width=0.25, stages=((2, 24, 2, 1),), dropout=0.0),
        {"x": pictures(8), "y": Y}, {}, 0.2,
    ),
    "densenet": (models.densenet(4, growth=4, blocks=(1, 1), width=8), {"x": pictures(16), "y": Y}, {}, 0.2),
    "inception_v1": (
        models.inception_v1(4, width=1 / 16, blocks=(1, 1, 1), aux=True, dropout=0.0),
        {"x": pictures(32), "y": Y}, {"loss": losses.AuxLoss()}, 0.8,  # heads have a dropout of their own
    ),
    "inception_v3": (
        models.inception_v3(4, width=1 / 16, blocks=(1, 1, 1), dropout=0.0), {"x": pictures(75), "y": Y}, {}, 0.2,
    ),
    "convnext": (
        models.convnext(4, blocks=(1, 1), widths=(4, 8), patch=2, drop_path=0.0), {"x": pictures(8), "y": Y}, {}, 0.2,
    ),
    "vit": (models.vit(4, d=16, heads=2, depth=1, patch=4, image=8), {"x": pictures(8), "y": Y}, {}, 0.2),
    "unet": (
        models.unet(1, 2, (4, 8)), {"x": GREY["x"], "y": (GREY["x"][..., 0] > 0.5).astype(np.int32)}, {}, 0.5,
    ),
    "autoencoder": (
        models.autoencoder((8, 8, 1), (32,), 16, noise=0.1), GREY,
        {**REBUILD, "loss": losses.binary_cross_entropy}, 0.95,
    ),
    "conv_autoencoder": (
        models.conv_autoencoder((8, 8, 1), (8,), 16), GREY, {**REBUILD, "loss": losses.binary_cross_entropy}, 0.95,
    ),
    "vae": (models.vae((8, 8, 1), (32,), 4), GREY, {**REBUILD, "loss": losses.negative_elbo}, 0.98),
    "gcn": (models.NodeOutputs(models.gcn(34, 2)), NODES, ON_NODES, 0.8),
    "gat": (models.NodeOutputs(models.gat(34, 2, heads=2)), NODES, ON_NODES, 0.8),
    "graph_sage": (models.NodeOutputs(models.graph_sage(34, 2)), NODES, ON_NODES, 0.8),
}  # fmt: skip


LONG = pytest.mark.skipif("DLKIT_LONG_TESTS" not in os.environ, reason="compiles for long: set DLKIT_LONG_TESTS=1")


# What they share with ResNet-18, VGG and ViT is shown by these; their outputs are compared with torchvision's always.
ALIKE = {"resnet50", "alexnet", "mobilenet_v2", "densenet", "convnext", "unet"}


def marks(name):
    return [LONG] if "inception" in name else [pytest.mark.thorough] if name in ALIKE else []


@pytest.mark.parametrize("name", [pytest.param(name, marks=marks(name)) for name in CASES])
def test_it_fits_a_batch(name):
    """The first update of Adam moves a leaf if and only if its gradient is not exactly 0."""
    model, fields, more, share = CASES[name]
    task = train.Task(model, **{"loss": losses.cross_entropy, **more})
    optimizer = optim.adam(1e-2)
    state = train.create_state(model, optimizer, jax.random.key(0))
    before = jax.device_get(state.params)
    step = train.make_step(task, optimizer)  # raises if it is traced twice
    batch = jax.device_put(fields)
    losses_ = []
    for i in range(40):
        state, sums = step(state, batch)
        losses_.append(sums["loss"])
        if not i:
            moved = jax.tree.map(lambda a, b: bool((np.asarray(a) != b).any()), state.params, before)
            assert [path for path, changed in tree.flatten(moved).items() if not changed] == []
    first, last = (task.result({"loss": held})["loss"] for held in (losses_[0], losses_[-1]))
    assert last < share * first, (first, last)
    assert step.traces == 1
