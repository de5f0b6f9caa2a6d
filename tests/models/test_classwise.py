"""CPE's class-wise normalization against three BatchNorms, and what a network says of a blank image."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from seval.algorithms import ALGORITHMS
from seval.algorithms.base import Head
from seval.data.loader import Batch
from seval.errors import RecipeError
from seval.losses import LABELED_LOSSES
from seval.models.ema import Ema
from seval.models.network import CLASSIFIERS, Network
from seval.models.wide_resnet import WideResNet
from seval.policy.base import Facts
from seval.policy.language import build_policy

D, C, CUTS = 6, 5, "classwise(2, 4)"


class Three(nn.Module):
    """Three norms before a shared linear layer, as published; `kind` is BatchNorm1d of features or 2d of 1 x 1 maps."""

    def __init__(self, like: nn.Module, kind: type[nn.Module]) -> None:
        super().__init__()
        self.norms, self.output = nn.ModuleList(kind(D) for _ in range(3)), deepcopy(like.output)
        for g, norm in enumerate(self.norms):
            norm.weight.data, norm.bias.data = like.scale.data[g].clone(), like.shift.data[g].clone()

    def forward(self, features: Tensor) -> list[Tensor]:
        maps = [
            norm(features[:, :, None, None] if isinstance(norm, nn.BatchNorm2d) else features) for norm in self.norms
        ]
        return [self.output(each.flatten(1)) for each in maps]


def classifier(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    found = CLASSIFIERS.build(CUTS, D, C)
    nn.init.normal_(found.scale, 1.0)
    nn.init.normal_(found.shift)
    nn.init.normal_(found.output.bias)
    return found


def features(seed: int, n: int = 16) -> Tensor:
    return 3 * torch.randn(n, D, generator=torch.Generator().manual_seed(seed)) + torch.arange(D)


@pytest.mark.parametrize("kind", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_it_is_three_norms_and_a_shared_layer_in_both_modes(kind):
    own = classifier()
    three = Three(own, kind)
    for seed in range(3):  # trained three times, statistics move alike
        for mode in (True, False):
            own.train(mode), three.train(mode)
            wanted = three(features(seed))
            found = own.groups(features(seed))
            assert torch.allclose(found, torch.stack(wanted), atol=2e-6)
            own.eval(), three.eval()
            assert torch.allclose(own(features(9)), sum(three(features(9))) / 3, atol=2e-6)
        for norm in three.norms:
            assert torch.allclose(norm.running_mean, own.norm.running_mean, atol=1e-6)
            assert torch.allclose(norm.running_var, own.norm.running_var, rtol=1e-6)
    own.train(), three.train()
    own(features(5)).square().sum().backward()
    (sum(three(features(5))) / 3).square().sum().backward()
    for g, norm in enumerate(three.norms):
        assert torch.allclose(own.scale.grad[g], norm.weight.grad, rtol=1e-4, atol=1e-4)
        assert torch.allclose(own.shift.grad[g], norm.bias.grad, rtol=1e-4, atol=1e-4)
    assert torch.allclose(own.output.weight.grad, three.output.weight.grad, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        *[(f"classwise({cuts})", "cuts must be 0 < medium <= tail < C") for cuts in ("0, 3", "3, 2", "2, 5")],
        ("classwise(2)", "missing"),
        ("classwise('a', 4)", "medium is 'a', but must be a finite int"),
        ("classwise(2, 3.5)", "tail is 3.5, but must be a finite int"),
    ],
)
def test_wrong_cuts(text, words):
    with pytest.raises(RecipeError, match=words):
        CLASSIFIERS.build(text, D, C)


def network(heads: dict[str, str], frozen: bool = False, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network(WideResNet(10, 1, 0, 1), heads, C, frozen=frozen).train()


def test_heads_share_scale_and_shift_and_nothing_else():
    net = network({"linear": CUTS, "expert": CUTS, "balanced": "linear"})
    first, second, _ = net.classifiers.values()
    assert first.scale is second.scale and first.shift is second.shift and first.norm is not second.norm
    assert first.output.weight is not second.output.weight
    names = [key for key, _ in net.named_parameters() if key.endswith(("scale", "shift"))]
    assert names == ["classifiers.linear.scale", "classifiers.linear.shift"]  # an optimizer sees them once
    copy = network({"linear": CUTS, "expert": CUTS, "balanced": "linear"}, seed=1)
    copy.load_state_dict(net.state_dict())
    assert all(torch.equal(value, net.state_dict()[key]) for key, value in copy.state_dict().items())
    assert copy.classifiers["linear"].scale is copy.classifiers["expert"].scale
    assert [net.cuts(head) for head in net.classifiers] == [(0, 2, 4), (0, 2, 4), (0,)]


def test_the_average_moves_what_heads_share_once():
    net = network({"linear": CUTS, "expert": CUTS})
    ema, scale = Ema(net, 0.9), net.classifiers["linear"].scale
    ema.update(0)
    with torch.no_grad():
        scale.add_(1.0)
    ema.update(100)
    averaged = ema.network.classifiers
    assert averaged["linear"].scale is averaged["expert"].scale
    assert torch.allclose(averaged["expert"].scale, torch.full_like(scale, 1.1))


def images(seed: int, n: int) -> Tensor:
    return torch.randn(n, 1, 8, 8, generator=torch.Generator().manual_seed(seed))


class OneGroup(Network):
    """The same network, which has no groups."""

    def groups(self, features: Tensor, head: str) -> Tensor:
        return self.classify(features, head).unsqueeze(0)

    def cuts(self, head: str) -> tuple[int, ...]:
        return (0,)


@pytest.mark.parametrize("normalize", ["kept", "batch"])
def test_groups_that_are_alike_learn_as_group_weights_do(normalize):
    torch.manual_seed(0)
    net = OneGroup(WideResNet(10, 1, 0, 1), {"f": CUTS}, C).train()
    counts, found = torch.tensor([20.0, 5, 50, 10, 2]), []
    batch = Batch((images(1, 6),), torch.arange(6) % C, (images(2, 24), images(3, 24), images(4, 24)), torch.arange(24))
    for rule, kind in ((" | group_weight(2, 4)", OneGroup), ("", Network)):
        one = deepcopy(net)
        one.__class__ = kind
        head = Head("f", LABELED_LOSSES.build("cross_entropy", counts), build_policy(f"one_hot{rule}", FACTS))
        algorithm = ALGORITHMS.build(f"fixmatch(strong=2, normalize={normalize!r})", FACTS, 1.0)
        found.append(algorithm.losses(one, one, batch, [head], 0.5))
    assert all(torch.allclose(found[0][key], found[1][key], rtol=1e-5) for key in found[0])


FACTS = Facts(C, torch.tensor([20.0, 5, 50, 10, 2]), 24, head="f")


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("training", [False, True])
def test_blank_logits_move_no_statistics_and_leave_the_mode(frozen, training):
    net = network({"linear": CUTS, "balanced": "linear"}, frozen).train(training)
    net(images(0, 12))
    state, modes = deepcopy(net.state_dict()), [module.training for module in net.modules()]
    found = net.blank(images(0, 1)[0], 1.5)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in net.state_dict().items())
    assert found.keys() == {"linear", "balanced"} and not any(each.requires_grad for each in found.values())
    net.eval()
    for head, logits in found.items():
        expected = net.classify(net.features(torch.full((1, 1, 8, 8), 1.5)), head)[0]
        assert logits.shape == (C,) and torch.equal(logits, expected)


def test_a_blank_color_is_of_each_channel():
    torch.manual_seed(0)
    net = Network(WideResNet(10, 1, 0, 3), {"linear": "linear"}, C).eval()
    color = torch.tensor([-1.0, 0.5, 2.0]).view(-1, 1, 1)
    found = net.blank(torch.randn(3, 8, 8), color)["linear"]
    assert torch.equal(found, net(color.expand(3, 8, 8)[None])[0])


@pytest.mark.parametrize(("kind", "zero"), [("linear", False), ("cosine", True), (CUTS, False)])
def test_the_bias_of_a_head_is_its_classifiers_without_gradient(kind, zero):
    net = network({"linear": kind})
    if not zero:
        layer = getattr(net.classifiers["linear"], "output", net.classifiers["linear"])
        nn.init.normal_(layer.bias)
    found = net.bias("linear")
    assert found.shape == (C,) and not found.requires_grad and bool((found == 0).all()) == zero
    with pytest.raises(RecipeError, match="bias of head 'balanced', but the heads are linear"):
        net.bias("balanced")


def test_a_network_of_bias_alone_says_it_of_blank_images():
    net = network({"linear": "linear"}).eval()
    nn.init.zeros_(net.classifiers["linear"].weight)
    nn.init.normal_(net.classifiers["linear"].bias)
    with torch.no_grad():
        assert torch.equal(net(images(0, 4)) - net.blank(images(0, 1)[0], 1.0)["linear"], torch.zeros(4, C))
