"""torchvision's networks, as narrow as the variants of ours that the tests run. Each takes torch and torchvision."""

import sys


def basic_resnet(torch, tv):
    return tv.models.resnet.ResNet(tv.models.resnet.BasicBlock, [1, 2, 1, 1], num_classes=5)


def bottleneck_resnet(torch, tv):
    return tv.models.resnet.ResNet(tv.models.resnet.Bottleneck, [1, 2, 1, 1], num_classes=5)


def _classifier(torch, d, hidden, *, first):
    n = torch.nn
    drop, one, two, out = n.Dropout(), n.Linear(d, hidden), n.Linear(hidden, hidden), n.Linear(hidden, 5)
    parts = (
        [drop, one, n.ReLU(), drop, two, n.ReLU(), out] if first else [one, n.ReLU(), drop, two, n.ReLU(), drop, out]
    )
    return n.Sequential(*parts)


def _with_classifier(torch, features, grid, classifier):
    """VGG's and AlexNet's `forward`; their own constructors want 4096 units."""

    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.features, self.classifier = features, classifier
            self.avgpool = torch.nn.AdaptiveAvgPool2d(grid)

        def forward(self, x):
            return self.classifier(torch.flatten(self.avgpool(self.features(x)), 1))

    return Net()


def vgg(torch, tv):
    cfg = [4, "M", 6, "M", 6, 6, "M", 8, 8, "M", 8, 8, "M"]
    features = tv.models.vgg.make_layers(cfg, batch_norm=True)
    return _with_classifier(torch, features, 2, _classifier(torch, 4 * 8, 12, first=False))


def alexnet(torch, tv):
    n = torch.nn
    features = n.Sequential(
        n.Conv2d(3, 4, 11, 4, 2), n.ReLU(), n.MaxPool2d(3, 2),
        n.Conv2d(4, 6, 5, padding=2), n.ReLU(), n.MaxPool2d(3, 2),
        n.Conv2d(6, 8, 3, padding=1), n.ReLU(), n.Conv2d(8, 6, 3, padding=1), n.ReLU(), n.Conv2d(6, 5, 3, padding=1),
        n.ReLU(), n.MaxPool2d(3, 2),
    )  # fmt: skip
    return _with_classifier(torch, features, 2, _classifier(torch, 20, 12, first=True))


def mobilenet(torch, tv):
    rows = [[1, 16, 1, 1], [6, 24, 2, 2], [6, 32, 1, 1]]
    return tv.models.mobilenetv2.MobileNetV2(num_classes=5, width_mult=0.5, inverted_residual_setting=rows)


def densenet(torch, tv):
    return tv.models.densenet.DenseNet(4, (2, 3), 8, 2, num_classes=5)


def googlenet(torch, tv):
    """An eighth of the channels."""
    m, n = sys.modules[tv.models.GoogLeNet.__module__], torch.nn

    def conv(c_in, c_out, **kw):
        return m.BasicConv2d(c_in if c_in == 3 else c_in // 8, c_out // 8, **kw)

    def block(c_in, *c):
        return m.Inception(c_in // 8, *(v // 8 for v in c))

    def head(c_in, classes, **kw):
        made = m.InceptionAux(c_in, classes, conv_block=conv, **kw)
        made.fc1, made.fc2 = n.Linear(16 * 16, 128), n.Linear(128, classes)
        return made

    net = m.GoogLeNet(num_classes=5, aux_logits=True, init_weights=False, blocks=[conv, block, head])
    net.fc = n.Linear(128, 5)
    return net


def inception_v3(torch, tv):
    """An eighth of the channels."""
    m, n = sys.modules[tv.models.Inception3.__module__], torch.nn

    def conv(c_in, c_out, **kw):
        return m.BasicConv2d(c_in if c_in == 3 else c_in // 8, c_out // 8, **kw)

    def narrow(kind):
        return lambda *args, **kw: kind(*args, **kw, conv_block=conv)

    blocks = [m.InceptionA, m.InceptionB, m.InceptionC, m.InceptionD, m.InceptionE, m.InceptionAux]
    net = m.Inception3(num_classes=5, init_weights=False, inception_blocks=[conv, *map(narrow, blocks)])
    net.fc, net.AuxLogits.fc = n.Linear(256, 5), n.Linear(96, 5)
    return net


def convnext(torch, tv):
    row = tv.models.convnext.CNBlockConfig
    return tv.models.convnext.ConvNeXt([row(6, 8, 1), row(8, None, 2)], num_classes=5)


def vit(torch, tv):
    return tv.models.vision_transformer.VisionTransformer(16, 8, 2, 2, 8, 32, num_classes=5)


def unet(torch, tv):
    """The paper's network with padding, as `down.0`, `down.2` for convolutions and so on; torchvision has none."""
    n = torch.nn

    def two(a, b):
        return n.Sequential(n.Conv2d(a, b, 3, padding=1), n.ReLU(), n.Conv2d(b, b, 3, padding=1), n.ReLU())

    class Net(n.Module):
        def __init__(self):
            super().__init__()
            self.down1, self.down2, self.bottom = two(3, 4), two(4, 6), two(6, 8)
            self.expand2, self.up2 = n.ConvTranspose2d(8, 6, 2, 2), two(12, 6)
            self.expand1, self.up1 = n.ConvTranspose2d(6, 4, 2, 2), two(8, 4)
            self.head = n.Conv2d(4, 5, 1)

        def forward(self, x):
            a = self.down1(x)
            b = self.down2(n.functional.max_pool2d(a, 2))
            c = self.bottom(n.functional.max_pool2d(b, 2))
            b = self.up2(torch.cat([b, self.expand2(c)], 1))
            a = self.up1(torch.cat([a, self.expand1(b)], 1))
            return self.head(a)

    return Net()


UNET_NAMES = {
    "down/conv1": "down1.0", "down/conv2": "down1.2", "up/conv1": "up1.0", "up/conv2": "up1.2", "head": "head",
    "across/branch2/expand": "expand1",
    **{f"across/branch2/inner/{k}/conv{i}": f"{k}2.{2 * i - 2}" for k in ("down", "up") for i in (1, 2)},
    "across/branch2/inner/across/branch2/expand": "expand2",
    **{f"across/branch2/inner/across/branch2/inner/conv{i}": f"bottom.{2 * i - 2}" for i in (1, 2)},
}  # fmt: skip
