"""ResNet-50 (He et al., arXiv 1512.03385) as a backbone: as in torchvision, and with a stem for small images."""

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import nn

from seval.errors import ConfigError, one_line
from seval.files import read_bytes

#: torchvision's IMAGENET1K_V2 weights. By convention the name ends with the first digits of the file's SHA-256.
WEIGHTS_FILE = "resnet50-11ad3fa6.pth"
SHA256_PREFIX = "11ad3fa6"
_LARGEST = 1 << 30  # bytes; the file has a tenth of that


def resnet50(in_channels: int = 3, pretrained: bool = False, weights: str = "") -> nn.Module:
    """torchvision's ResNet-50 without its classifier: (N, in_channels, H, W) -> (N, 2048); 23,508,032 parameters.

    `pretrained` loads the ImageNet weights from the file `weights` or, if that is empty, from PyTorch's cache.
    Raises `ConfigError` if the file cannot be read or is another file.
    """
    from torchvision import models  # here, since it is slow to import

    net = models.resnet50()
    if pretrained:
        if in_channels != 3:
            raise ConfigError(f"MODEL.PRETRAINED needs images of 3 channels, not {in_channels}; set it to False")
        net.load_state_dict(torch.load(BytesIO(_weights(weights)), map_location="cpu", weights_only=True))
    elif in_channels != 3:
        net.conv1 = _convolution(in_channels, 7, 2)
    return _without_classifier(net)


def cifar_resnet50(in_channels: int = 3) -> nn.Module:
    """ResNet-50 for images of about 32 x 32 pixels: (N, in_channels, H, W) -> (N, 2048).

    The stem is a 3x3 convolution with stride 1, without pooling. The rest is as in `resnet50`.
    """
    from torchvision import models  # here, since it is slow to import

    net = models.resnet50()
    net.conv1 = _convolution(in_channels, 3, 1)
    net.add_module("maxpool", nn.Identity())
    return _without_classifier(net)


def _convolution(in_channels: int, kernel: int, stride: int) -> nn.Conv2d:
    """A stem, initialized like every convolution in torchvision."""
    layer = nn.Conv2d(in_channels, 64, kernel, stride, kernel // 2, bias=False)
    nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return layer


def _without_classifier(net: Any) -> nn.Module:
    net.fc, net.feature_dim = nn.Identity(), 2048
    return net


def _weights(given: str) -> bytes:
    """The file of the weights, after a check. If none is given, it is downloaded to PyTorch's cache."""
    path = Path(given) if given else Path(torch.hub.get_dir()) / "checkpoints" / WEIGHTS_FILE
    advice = f"put torchvision's ResNet-50 weights IMAGENET1K_V2, {WEIGHTS_FILE}, there, or name them in MODEL.WEIGHTS"
    if not given and not path.is_file():
        _fetch(path, advice)
    try:
        content = read_bytes(path, _LARGEST)
    except OSError as error:
        raise ConfigError(f"MODEL.PRETRAINED is True, but {error}; {advice}") from None
    sha256 = hashlib.sha256(content).hexdigest()
    if not sha256.startswith(SHA256_PREFIX):
        begins = f"its SHA-256 begins with {sha256[: len(SHA256_PREFIX)]}, not with {SHA256_PREFIX}"
        raise ConfigError(f"{path} is not the file of weights that was expected: {begins}; {advice}")
    return content


def _fetch(path: Path, advice: str) -> None:
    from torchvision.models import ResNet50_Weights  # imported here because it is slow

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(ResNet50_Weights.IMAGENET1K_V2.url, str(path), SHA256_PREFIX, progress=False)
    except Exception as error:  # network code and proxies can raise any error
        reason = f"{path} is absent and cannot be downloaded ({one_line(error)})"
        raise ConfigError(f"MODEL.PRETRAINED is True, but {reason}; {advice}") from None
