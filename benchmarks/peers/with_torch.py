"""torch: eager and `torch.compile`, channels first and last, the default and the fused Adam."""

from typing import Any

import numpy as np
import torch
from timing import Trainer
from torch import nn
from torch.nn import functional as F

from peers.problem import BLOCKS, CLASSES, LEARNING_RATE, WIDTHS, Problem


class Block(nn.Module):
    def __init__(self, c_in: int, c_out: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False), nn.BatchNorm2d(c_out)
        self.conv2, self.norm2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False), nn.BatchNorm2d(c_out)
        self.stride, self.more = stride, (c_out - c_in) // 2

    def forward(self, x: Any) -> Any:
        y = self.norm2(self.conv2(F.relu(self.norm1(self.conv1(x)))))
        if self.more:
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))
        return F.relu(x + y)


def build(name: str) -> nn.Sequential:
    if name == "mlp":
        a, b, c, d = WIDTHS
        return nn.Sequential(nn.Linear(a, b), nn.ReLU(), nn.Linear(b, c), nn.ReLU(), nn.Linear(c, d))
    if name == "cnn":
        convs = nn.Conv2d(1, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU()
        return nn.Sequential(*convs, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(14 * 14 * 64, CLASSES))
    stem = nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
    blocks = (Block(*sizes) for sizes in BLOCKS)
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def trainer(problem: Problem, *, channels_last: bool = False, fused: bool = False, compiled: bool = False) -> Trainer:
    model = build(problem.name)
    take = problem.take()
    with torch.no_grad():
        for layer in model.modules():
            if not isinstance(layer, (nn.Linear, nn.Conv2d)):
                continue
            w = take()
            if w.ndim == 4:
                w = w.transpose(3, 2, 0, 1)
            elif problem.name == "cnn":
                w = w.reshape(14, 14, 64, -1).transpose(3, 2, 0, 1).reshape(CLASSES, -1)
            else:
                w = w.T
            layer.weight.copy_(torch.tensor(np.ascontiguousarray(w)))
            if layer.bias is not None:
                layer.bias.copy_(torch.tensor(take()))
    x, y = torch.tensor(problem.x), torch.tensor(problem.y).long()
    if x.ndim == 4:
        x = x.permute(0, 3, 1, 2).contiguous()
    if channels_last:
        model, x = model.to(memory_format=torch.channels_last), x.contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE, fused=fused)

    def forward(x: Any, y: Any) -> Any:
        return F.cross_entropy(model(x), y)

    loss = torch.compile(forward) if compiled else forward

    def step() -> Any:
        optimizer.zero_grad(set_to_none=True)
        value = loss(x, y)
        value.backward()
        optimizer.step()
        return value.detach()

    return Trainer(step, lambda: None, sum(p.numel() for p in model.parameters()))
