"""The classic networks: published parameter counts, and their outputs beside torchvision's under the same weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import torchvision_twins as twins
from support.reference import reference
from support.torchvision_weights import load, made, torch_layout

from dlkit import models, nn, tree

KEY = jax.random.key(0)

# As published by torchvision; vit_s and vit_ti by timm; U-Net by the layers of the paper's figure, 2 classes.
COUNTS = {
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160,
    "resnet152": 60_192_808, "vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840, "vgg13_bn": 133_053_736, "vgg16_bn": 138_365_992, "vgg19_bn": 143_678_248,
    "alexnet": 61_100_840, "mobilenet_v2": 3_504_872, "densenet121": 7_978_856, "inception_v1": 6_624_904,
    "convnext_tiny": 28_589_128, "vit_b_16": 86_567_656, "vit_s_16": 22_050_664, "vit_ti_16": 5_717_416,
    "resnet20": 269_722, "unet": 31_031_810,
}  # fmt: skip


def count(model) -> int:
    return tree.count(jax.eval_shape(model.init, KEY))


@pytest.mark.parametrize("name", COUNTS)
def test_parameters_are_as_many_as_published(name):
    assert count(models.create(name)) == COUNTS[name]


def test_with_the_heads_of_training_too():
    assert count(models.create("inception_v1", aux=True)) == 13_004_888
    assert count(models.create("inception_v3", aux=True)) == 27_161_264


EIGHTH = {"width": 1 / 8, "aux": True}
# name: ours, its names, the twin, the side of the picture
CASES = {
    "resnet18": (models.resnet(18, 5, blocks=(1, 2, 1, 1)), models.resnet_names, lambda *a: twins.resnet(*a, "BasicBlock"), 32),
    "resnet50": (models.resnet(50, 5, blocks=(1, 2, 1, 1)), models.resnet_names, lambda *a: twins.resnet(*a, "Bottleneck"), 32),
    "vgg11_bn": (
        models.vgg(11, 5, norm=True, widths=(4, 6, 6, 8, 8), hidden=12, grid=2), models.vgg_names, twins.vgg, 64,
    ),
    "alexnet": (models.alexnet(5, widths=(4, 6, 8, 6, 5), hidden=12, grid=2), models.alexnet_names, twins.alexnet, 67),
    "mobilenet_v2": (
        models.mobilenet_v2(5, width=0.5, stages=((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 1, 1))),
        models.mobilenet_v2_names, twins.mobilenet, 32,
    ),
    "densenet": (
        models.densenet(5, growth=4, blocks=(2, 3), width=8, bottleneck=2), models.densenet_names, twins.densenet, 32,
    ),
    "inception_v1": (models.inception_v1(5, **EIGHTH), models.inception_v1_names, twins.googlenet, 64),
    "inception_v3": (models.inception_v3(5, **EIGHTH), models.inception_v3_names, twins.inception_v3, 79),
    "convnext": (models.convnext(5, blocks=(1, 2), widths=(6, 8)), models.convnext_names, twins.convnext, 24),
    "vit": (models.vit(5, d=8, heads=2, depth=2, patch=8, image=16), models.vit_names, twins.vit, 16),
    "unet": (
        models.unet(3, 5, (4, 6, 8)), lambda _: {k: f"/{v}" for k, v in twins.UNET_NAMES.items()}, twins.unet, 16,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_outputs_and_gradients_are_torchvisions(name):
    """Under the same weights in evaluation; the names of all modules are used, and there are no others.

    The gradient is that of a weighted sum of the outputs by the picture. torch computes in float64.
    """
    model, names_of, twin, side = CASES[name]
    names = names_of(model)
    params, state = made(model, names)
    x = np.random.default_rng(1).standard_normal((2, side, side, 3)).astype(np.float32)

    def compute():
        import torch

        tv = None
        if name != "unet":
            import torchvision as tv
        net = load(torch, twin(torch, tv), torch_layout(model, names, params, state))
        held = torch.tensor(x, dtype=torch.float64, requires_grad=True)
        y = net(held.movedim(-1, 1))
        y = y.movedim(1, -1) if y.ndim == 4 else y
        (y * torch.cos(torch.arange(y.numel()).double()).reshape(y.shape)).sum().backward()
        return {"y": y.detach().numpy(), "dx": held.grad.numpy()[:, ::5, ::5]}

    want = reference(f"vision/{name}", compute, needs="torch" if name == "unet" else "torchvision")

    @jax.jit
    def run(params, state, x):
        def loss(x):
            y = model.apply(params, state, x, nn.EVAL)[0]
            return jnp.sum(y * jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape)), y

        dx, y = jax.grad(loss, has_aux=True)(x)
        return {"y": y, "dx": dx[:, ::5, ::5]}

    got = run(params, state, x)
    for key, value in want.items():
        # float32: up to a hundred layers, each with a rounding of its sums.
        np.testing.assert_allclose(got[key], value, rtol=0, atol=3e-5 * np.abs(value).max(), err_msg=key)
