"""ResNet-18 under torchvision's names: every stage and the logits against the same network written in torch.

Tolerance 1e-5 of the largest value: float32 at highest precision. The weights are drawn with numpy on both sides, so
that the golden file holds outputs alone.
"""

import jax
import jax.numpy as jnp
import numpy as np
from support.reference import reference

from dlkit import io, nn

DEPTHS, WIDTHS = (2, 2, 2, 2), (64, 128, 256, 512)


def resnet18():
    stages, c_in = {}, 64
    for i, (depth, c_out) in enumerate(zip(DEPTHS, WIDTHS, strict=True), 1):
        blocks = {}
        for j in range(1, depth + 1):
            blocks[f"block{j}"] = nn.BasicBlock(c_in, c_out, 2 if i > 1 and j == 1 else 1)
            c_in = c_out
        stages[f"stage{i}"] = nn.Chain(**blocks)
    return nn.Chain(
        conv=nn.Conv(3, 64, 7, stride=2, padding=3, bias=False), norm=nn.BatchNorm(64), relu=nn.Relu(),
        pool=nn.MaxPool(3, 2, padding=1), **stages, mean=nn.GlobalAvgPool(), head=nn.Linear(512, 10),
    )  # fmt: skip


def weights():
    """By torchvision's names, with He's variance; norms and moments that all differ."""
    model = resnet18()
    shapes = jax.eval_shape(lambda key: {"params": model.init(key), "state": model.init_state()}, jax.random.key(0))
    zeros = jax.tree.map(lambda s: np.zeros(s.shape, s.dtype), shapes)
    names = io.to_torch(model, zeros["params"], zeros["state"], io.torchvision_resnet(DEPTHS))
    rng, found = np.random.default_rng(0), {}
    for name in sorted(names):
        shape = names[name].shape
        value = rng.standard_normal(shape, np.float32)
        if len(shape) > 1:
            value *= np.float32((2 / np.prod(shape[1:])) ** 0.5)
        elif "var" in name or ("bn" in name and "weight" in name) or "downsample.1.weight" in name:
            value = np.float32(1) + np.float32(0.1) * np.abs(value)
        else:
            value *= np.float32(0.1)
        found[name] = value
    return found


def picture():
    return np.random.default_rng(1).standard_normal((2, 32, 32, 3)).astype(np.float32)


def live():
    import torch
    from torch import nn as tn

    class Block(tn.Module):
        def __init__(self, c_in, c_out, stride):
            super().__init__()
            self.conv1 = tn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
            self.bn1 = tn.BatchNorm2d(c_out)
            self.conv2 = tn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
            self.bn2 = tn.BatchNorm2d(c_out)
            self.downsample = None
            if stride > 1 or c_in != c_out:
                self.downsample = tn.Sequential(tn.Conv2d(c_in, c_out, 1, stride, bias=False), tn.BatchNorm2d(c_out))

        def forward(self, x):
            y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
            return (y + (x if self.downsample is None else self.downsample(x))).relu()

    net = tn.Module()
    net.conv1, net.bn1, net.fc = tn.Conv2d(3, 64, 7, 2, 3, bias=False), tn.BatchNorm2d(64), tn.Linear(512, 10)
    c_in = 64
    for i, (depth, c_out) in enumerate(zip(DEPTHS, WIDTHS, strict=True), 1):
        blocks = []
        for j in range(depth):
            blocks.append(Block(c_in, c_out, 2 if i > 1 and j == 0 else 1))
            c_in = c_out
        setattr(net, f"layer{i}", tn.Sequential(*blocks))
    told = net.load_state_dict({k: torch.tensor(v) for k, v in weights().items()}, strict=False)
    assert all(name.endswith("num_batches_tracked") for name in told.missing_keys)
    assert not told.unexpected_keys
    net.eval()
    with torch.no_grad():
        h = net.bn1(net.conv1(torch.tensor(picture()).movedim(-1, 1))).relu()
        h = tn.functional.max_pool2d(h, 3, 2, 1)
        found = {"0_stem": h}
        for i in range(1, 5):
            h = getattr(net, f"layer{i}")(h)
            found[f"{i}_stage"] = h
        found["5_logits"] = net.fc(h.mean((2, 3)))
    return {name: (h.movedim(1, -1) if h.ndim == 4 else h).numpy() for name, h in found.items()}


def test_resnet18_stage_by_stage():
    told = reference("io/resnet/resnet18", live)
    model = resnet18()
    params, state, report = io.from_torch(model, weights(), io.torchvision_resnet(DEPTHS))
    assert len(report.used) == 102  # torchvision's 122 names but the 20 counters of batches
    assert sum(a.size for a in jax.tree.leaves(params)) == 11_689_512 - 990 * 513  # 1,000 classes less

    @jax.jit
    def run(params, state, x):
        found = {}
        for name, layer in model.children().items():
            x, _ = layer.apply(params[name], state.get(name), x, nn.EVAL)
            found[name] = x
        return found

    ours = run(params, state, jnp.asarray(picture()))
    pairs = {"0_stem": "pool", **{f"{i}_stage": f"stage{i}" for i in range(1, 5)}, "5_logits": "head"}
    error = {mine: np.abs(np.asarray(ours[mine]) - told[k]).max() / np.abs(told[k]).max() for k, mine in pairs.items()}
    differs = [name for name, e in error.items() if not e <= 1e-5]
    assert not differs, f"the first that differs is {differs[0]}: {error}"
