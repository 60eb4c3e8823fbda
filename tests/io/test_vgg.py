"""VGG under torchvision's names: every stage and the logits against the same network written in torch.

Tolerance 1e-5 of the largest value: float32 at highest precision. The weights are drawn with numpy on both sides.
"""

import jax
import numpy as np
import pytest
from support.reference import reference
from support.torchvision_weights import made, torch_layout

from dlkit import io, models

WIDTHS, HIDDEN, GRID = (4, 6, 6, 8, 8), 12, 2
LAYERS = ["pool1", "pool2", "pool3", "pool4", "pool5", "linear1", "linear2", "head"]


def picture():
    return np.random.default_rng(1).standard_normal((2, 64, 64, 3)).astype(np.float32)


def live(weights, norm):
    """`features` and `classifier` as torchvision numbers them, and what LAYERS give."""
    import torch
    from torch import nn as tn

    features, c_in = [], 3
    for c_out, depth in zip(WIDTHS, (1, 1, 2, 2, 2), strict=True):  # VGG-11
        for _ in range(depth):
            features += [tn.Conv2d(c_in, c_out, 3, padding=1), *[tn.BatchNorm2d(c_out)] * norm, tn.ReLU()]
            c_in = c_out
        features.append(tn.MaxPool2d(2))
    net = tn.Module()
    net.features = tn.Sequential(*features)
    net.classifier = tn.Sequential(
        tn.Linear(c_in * GRID**2, HIDDEN), tn.ReLU(), tn.Dropout(), tn.Linear(HIDDEN, HIDDEN), tn.ReLU(), tn.Dropout(),
        tn.Linear(HIDDEN, 5),
    )  # fmt: skip
    told = net.load_state_dict({k: torch.tensor(v) for k, v in weights.items()}, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in told.missing_keys)
    assert not told.unexpected_keys
    net.eval()
    found = []
    with torch.no_grad():
        h = torch.tensor(picture()).movedim(-1, 1)
        for layer in net.features:
            h = layer(h)
            if isinstance(layer, tn.MaxPool2d):
                found.append(h.movedim(1, -1))
        h = tn.functional.adaptive_avg_pool2d(h, GRID).flatten(1)
        for layer in net.classifier:
            h = layer(h)
            if isinstance(layer, tn.Linear):
                found.append(h)
    return {name: h.numpy() for name, h in zip(LAYERS, found, strict=True)}


@pytest.mark.parametrize("norm", [False, True])
def test_vgg11_layer_by_layer(norm):
    model = models.vgg(11, 5, norm=norm, widths=WIDTHS, hidden=HIDDEN, grid=GRID)
    names = models.vgg_names(model)
    weights = {k: np.ascontiguousarray(v) for k, v in torch_layout(model, names, *made(model, names)).items()}
    told = reference(f"io/vgg/{'bn' if norm else 'plain'}", lambda: live(weights, norm))
    params, state, report = io.from_torch(model, weights, names)
    assert set(report.used) == weights.keys()
    ours = jax.jit(lambda params, state, x: models.features(model, params, state, x, LAYERS))(params, state, picture())
    error = {name: np.abs(np.asarray(ours[name]) - told[name]).max() / np.abs(told[name]).max() for name in LAYERS}
    differs = [name for name in LAYERS if not error[name] <= 1e-5]
    assert not differs, f"the first that differs is {differs[0]}: {error}"
