from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torchvision import models

from seval.build import build_network
from seval.config import load
from seval.errors import ConfigError
from seval.models import resnet
from seval.run import identity


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_resnet50_is_that_of_torchvision_without_its_classifier():
    torch.manual_seed(0)
    net = resnet.resnet50().eval()
    assert count(net) == 23_508_032 and net.feature_dim == 2048
    whole = models.resnet50().eval()
    whole.load_state_dict(net.state_dict(), strict=False)
    whole.fc = nn.Identity()
    images = torch.randn(2, 3, 40, 40)
    with torch.no_grad():
        features = net(images)
        assert features.shape == (2, 2048) and torch.equal(features, whole(images))


def test_cifar_resnet50_equals_the_layers_written_out():
    torch.manual_seed(0)
    net = resnet.cifar_resnet50().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 2)
    weights = net.state_dict()
    assert count(net) == 23_508_032 - 64 * 3 * (49 - 9)

    def conv_bn(x, conv, bn, stride=1):
        x = F.conv2d(x, weights[f"{conv}.weight"], stride=stride, padding=weights[f"{conv}.weight"].shape[2] // 2)
        mean, var, scale, shift = (
            weights[f"{bn}.{part}"].view(1, -1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (var + 1e-5).sqrt() * scale + shift

    images = torch.randn(2, 3, 8, 8)
    h = conv_bn(images, "conv1", "bn1").relu()
    for stage, (blocks, stride) in enumerate(zip((3, 4, 6, 3), (1, 2, 2, 2), strict=True), start=1):
        for block in range(blocks):
            name, step = f"layer{stage}.{block}", stride if block == 0 else 1
            out = conv_bn(h, f"{name}.conv1", f"{name}.bn1").relu()
            out = conv_bn(out, f"{name}.conv2", f"{name}.bn2", step).relu()
            out = conv_bn(out, f"{name}.conv3", f"{name}.bn3")
            shortcut = conv_bn(h, f"{name}.downsample.0", f"{name}.downsample.1", step) if block == 0 else h
            h = (out + shortcut).relu()
        assert h.shape[1] == 256 * 2 ** (stage - 1)
    with torch.no_grad():
        torch.testing.assert_close(net(images), h.mean((2, 3)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("build", [resnet.resnet50, resnet.cifar_resnet50])
def test_initialization_is_the_published_one(build):
    torch.manual_seed(0)
    net = build(1)
    assert net.conv1.in_channels == 1 and net.eval()(torch.zeros(1, 1, 8, 8)).shape == (1, 2048)
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * module.kernel_size[0] ** 2
            assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=0.1) and module.bias is None
        if isinstance(module, nn.BatchNorm2d):
            assert (module.weight == 1).all() and not module.bias.any()


def test_pretrained_weights_are_loaded_from_the_file_and_checked(tmp_path, monkeypatch):
    torch.manual_seed(1)
    whole = models.resnet50()
    file = tmp_path / "weights.pth"
    torch.save(whole.state_dict(), file)
    given = hashlib.sha256(file.read_bytes()).hexdigest()[:8]
    with pytest.raises(ConfigError, match=f"begins with {given}, not with 11ad3fa6; put torchvision's .*MODEL.WEIGHTS"):
        resnet.resnet50(3, True, str(file))
    monkeypatch.setattr(resnet, "SHA256_PREFIX", given)
    cfg = load((), ["MODEL.NAME", "resnet50", "MODEL.PRETRAINED", True, "MODEL.WEIGHTS", str(file)])
    net = build_network(cfg, 7, 3)
    assert all(torch.equal(value, whole.state_dict()[key]) for key, value in net.backbone.state_dict().items())
    with pytest.raises(ConfigError, match="3 channels, not 1"):
        build_network(cfg, 7, 1)
    with pytest.raises(ConfigError, match="cannot read .*absent.pth: .*resnet50-11ad3fa6.pth"):
        resnet.resnet50(3, True, str(tmp_path / "absent.pth"))
    with pytest.raises(ConfigError, match="it is not a regular file"):
        resnet.resnet50(3, True, "/dev/zero")


def test_without_a_file_the_cache_is_used_or_filled(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    cached = tmp_path / "checkpoints" / "resnet50-11ad3fa6.pth"

    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    with pytest.raises(ConfigError, match="11ad3fa6.pth is absent and cannot be downloaded .no network.; put"):
        resnet._weights("")

    def download(url, path, prefix, progress):
        assert url.endswith("resnet50-11ad3fa6.pth") and prefix == "11ad3fa6"
        Path(path).write_bytes(b"fetched")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    monkeypatch.setattr(resnet, "SHA256_PREFIX", "11ad3fa6")
    with pytest.raises(ConfigError, match="is not the file of weights"):
        resnet._weights("")
    monkeypatch.setattr(resnet, "SHA256_PREFIX", hashlib.sha256(b"fetched").hexdigest()[:8])
    monkeypatch.setattr(torch.hub, "download_url_to_file", None)
    assert resnet._weights("") == cached.read_bytes() == b"fetched"


def test_the_identity_has_whether_weights_are_used_and_not_where_they_lie():
    plain, pretrained, elsewhere = (
        identity(load((), ["MODEL.NAME", "resnet50", *keys]))
        for keys in ([], ["MODEL.PRETRAINED", True], ["MODEL.PRETRAINED", True, "MODEL.WEIGHTS", "elsewhere.pth"])
    )
    assert plain != pretrained and pretrained == elsewhere
    with pytest.raises(ConfigError, match="weights of resnet50 only, not of wide_resnet"):
        load((), ["MODEL.PRETRAINED", True])
