"""The wide residual network of the SSL literature (Zagoruyko & Komodakis, arXiv 1605.07146), as published for SEVAL."""

import torch.nn.functional as F
from torch import Tensor, nn

SLOPE = 0.1  # of every leaky ReLU


class Block(nn.Module):
    """Two 3x3 convolutions, each after BatchNorm and leaky ReLU, with a shortcut.

    With `shared`, the shortcut starts after the first activation instead of before it: only in the first block.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, shared: bool) -> None:
        super().__init__()
        self.shared = shared
        self.norm1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        same = in_channels == out_channels and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        active = F.leaky_relu(self.norm1(x), SLOPE)
        out = self.conv2(F.leaky_relu(self.norm2(self.conv1(active)), SLOPE))
        return out + self.shortcut(active if self.shared else x)


class WideResNet(nn.Module):
    """WRN-depth-width for images of about 32 x 32 pixels: (N, in_channels, H, W) -> logits (N, num_classes).

    With `num_classes` 0 it has no classifier and returns features (N, feature_dim).
    WRN-28-2 with 10 classes has 1,467,610 parameters.
    """

    def __init__(self, depth: int = 28, width: int = 2, num_classes: int = 10, in_channels: int = 3) -> None:
        super().__init__()
        if (depth - 4) % 6 or depth < 10:
            raise ValueError(f"depth is {depth}, but a wide ResNet has 6n + 4 layers: 10, 16, 22, 28, ...")
        widths = [16, 16 * width, 32 * width, 64 * width]
        blocks = []
        for stage in range(3):
            for i in range((depth - 4) // 6):
                stride = 2 if stage > 0 and i == 0 else 1
                blocks.append(Block(widths[stage + (i > 0)], widths[stage + 1], stride, shared=not blocks))
        self.stem = nn.Conv2d(in_channels, widths[0], 3, 1, 1, bias=False)
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(widths[3])
        self.feature_dim = widths[3]
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        self.classifier = linear(self.feature_dim, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        features = F.leaky_relu(self.norm(self.blocks(self.stem(x))), SLOPE).mean(dim=(2, 3))  # (N, feature_dim)
        return self.classifier(features)


def linear(in_features: int, out_features: int) -> nn.Linear:
    """A classifier as published: Xavier-normal weights, zero bias."""
    layer = nn.Linear(in_features, out_features)
    nn.init.xavier_normal_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer
