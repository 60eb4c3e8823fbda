"""The classic networks: published parameter counts, and their outputs beside torchvision's under the same weights."""

import os

import jax
import numpy as np
import pytest
from support import torchvision_twins as twins
from support.reference import reference
from support.torchvision_weights import load, made, torch_layout

from dlkit import io, models, nn, tree

KEY = jax.random.key(0)

# As published by torchvision; vit_s and vit_ti by timm; ResNet-20 in its paper (0.27M).
COUNTS = {
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160,
    "resnet152": 60_192_808, "vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240,
    "vgg11_bn": 132_868_840, "vgg13_bn": 133_053_736, "vgg16_bn": 138_365_992, "vgg19_bn": 143_678_248,
    "alexnet": 61_100_840, "mobilenet_v2": 3_504_872, "densenet121": 7_978_856, "inception_v1": 6_624_904,
    "convnext_tiny": 28_589_128, "vit_b_16": 86_567_656, "vit_s_16": 22_050_664, "vit_ti_16": 5_717_416,
    "resnet20": 269_722,
}  # fmt: skip


def count(model) -> int:
    return tree.count(jax.eval_shape(model.init, KEY))


DEPTHS = {"resnet34", "resnet101", "resnet152", "vgg13", "vgg16", "vgg13_bn", "vgg16_bn", "vgg19_bn", "vit_s_16"}


@pytest.mark.parametrize("name", [pytest.param(c, marks=[pytest.mark.thorough] * (c in DEPTHS)) for c in COUNTS])
def test_parameters_are_as_many_as_published(name):
    assert count(models.create(name)) == COUNTS[name]


def test_unet_has_the_layers_of_the_papers_figure():
    convs = [(1, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    convs += [(512, 1024), (1024, 1024), (1024, 512), (512, 512), (512, 256), (256, 256)]
    convs += [(256, 128), (128, 128), (128, 64), (64, 64)]
    up = [(1024, 512), (512, 256), (256, 128), (128, 64)]
    assert count(models.unet()) == sum(9 * a * b + b for a, b in convs) + sum(4 * a * b + b for a, b in up) + 65 * 2


def test_with_the_heads_of_training_too():
    assert count(models.create("inception_v1", aux=True)) == 13_004_888
    assert count(models.create("inception_v3", aux=True)) == 27_161_264


EIGHTH = {"width": 1 / 8, "aux": True}
# name: ours, its names, the twin, the side of the picture
CASES = {
    "resnet18": (models.resnet(18, 5, blocks=(1, 2, 1, 1)), models.resnet_names, twins.basic_resnet, 32),
    "resnet50": (models.resnet(50, 5, blocks=(1, 2, 1, 1)), models.resnet_names, twins.bottleneck_resnet, 32),
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


HEADS = {"inception_v1": (("aux1", "aux2"), 6), "inception_v3": (("AuxLogits",), 17)}


LONG = pytest.mark.skipif("DLKIT_LONG_TESTS" not in os.environ, reason="compiles for long: set DLKIT_LONG_TESTS=1")


ROWS = [pytest.param(c, marks=LONG) if "inception" in c else c for c in CASES]


@pytest.mark.parametrize("name", ROWS)
def test_weights_are_read_and_written_by_torchvisions_names(name):
    """`io.from_torch` takes every array under the names, bit for bit, and `io.to_torch` writes them."""
    model, names_of, *_ = CASES[name]
    names = names_of(model)
    held = made(model, names)
    arrays = torch_layout(model, names, *held)
    *found, report = io.from_torch(model, arrays, names)
    assert set(report.used) == arrays.keys()
    same = jax.tree.map(lambda a, b: bool((np.asarray(a) == b).all()), found, list(held))
    assert jax.tree.all(same), same
    back = io.to_torch(model, *found, names)
    assert back.keys() == arrays.keys()
    assert all(np.array_equal(back[name], value) for name, value in arrays.items())


@pytest.mark.parametrize("name", ROWS)
def test_outputs_are_torchvisions(name):
    """Under the same weights in evaluation; the names of all modules are used, and there are no others.

    The heads of training of the Inceptions are compared too. torch computes in float64.
    """
    model, names_of, twin, side = CASES[name]
    names = names_of(model)
    params, state = made(model, names)
    arrays = torch_layout(model, names, params, state)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((2, side, side, 3)).astype(np.float32)
    heads, small = HEADS.get(name, ((), 1))
    inner = [rng.standard_normal((2, small, small, head["conv" if small == 6 else "conv1"]["conv"].c_in))
             for head in getattr(model, "aux", ())]  # fmt: skip

    def compute():
        import torch

        tv = None
        if name != "unet":
            import torchvision as tv
        net = load(torch, twin(torch, tv), arrays)
        y = net(torch.tensor(x, dtype=torch.float64).movedim(-1, 1))
        y = y.movedim(1, -1) if y.ndim == 4 else y
        aside = {h: getattr(net, h)(torch.tensor(a).movedim(-1, 1)) for h, a in zip(heads, inner, strict=True)}
        return {k: v.detach().numpy() for k, v in {"y": y, **aside}.items()}

    want = reference(f"vision/{name}", compute, needs="torch" if name == "unet" else "torchvision")

    got = {"y": jax.jit(model.apply)(params, state, x, nn.EVAL)[0]}
    for i, (head, a) in enumerate(zip(heads, inner, strict=True)):
        aux = jax.jit(model.aux[i].apply)
        got[head] = aux(params["aux"][i], state["aux"][i], a.astype(np.float32), nn.EVAL)[0]
    for key, value in want.items():
        # float32: up to a hundred layers, each with a rounding of its sums.
        np.testing.assert_allclose(got[key], value, rtol=0, atol=3e-5 * np.abs(value).max(), err_msg=key)
