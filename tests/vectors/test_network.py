"""Networks, their average, learning rates and FixMatch's steps: numbers of the published code."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from seval.config import load
from seval.models.ema import Ema
from seval.models.network import Network
from seval.models.resnet import cifar_resnet50
from seval.models.wide_resnet import WideResNet
from seval.train import rate
from tests.settings import ROOT
from tests.vectors.driving import Batch, Facts, Solver, assemble, stacked, train
from tests.vectors.loading import uses

#: Layers of a block of the published network by their names here; its first block numbers them otherwise.
LAYERS = {"layer.0": "norm1", "layer.2": "conv1", "layer.3": "norm2", "layer.5": "conv2", "identity": "shortcut"}
FIRST = {"pre_act.0": "norm1", "layer.0": "conv1", "layer.1": "norm2", "layer.3": "conv2", "identity": "shortcut"}


def ours(name: str) -> str:
    """The key of this code for a key of the published wide residual network."""
    module, _, parameter = name.rpartition(".")
    if module == "classifier.classifier":
        return f"classifiers.linear.{parameter}"
    if module in ("encoder.init_conv", "encoder.unit4.0"):
        return f"backbone.{'stem' if 'init' in module else 'norm'}.{parameter}"
    _, unit, block, layer = module.split(".", 3)
    number = 4 * (int(unit[-1]) - 1) + int(block)
    return f"backbone.blocks.{number}.{(LAYERS if number else FIRST)[layer]}.{parameter}"


def formula(rs: np.random.RandomState, name: str, shape: tuple[int, ...]) -> Tensor:
    """The value that the vectors gave to a parameter or buffer."""
    if name.endswith("running_var"):
        values = 0.5 + rs.rand(*shape)
    elif name.endswith("running_mean"):
        values = 0.2 * rs.randn(*shape)
    elif len(shape) == 1:
        values = name.endswith(".weight") + 0.1 * rs.randn(*shape)
    else:
        values = rs.randn(*shape) * np.sqrt((2 if len(shape) == 2 else 0.5) / np.prod(shape[1:]))
    return torch.from_numpy(values.astype(np.float32))


def fill(net: nn.Module, keys: dict[str, str], seed: int) -> None:
    """Set everything in the order of the published names; `keys` are theirs to ours."""
    rs, state = np.random.RandomState(seed), net.state_dict()
    assert {key for key in state if not key.endswith("num_batches_tracked")} == set(keys.values())
    with torch.no_grad():
        for name, key in keys.items():
            state[key].copy_(formula(rs, name, tuple(state[key].shape)))


def wide_resnet(names: np.ndarray, width: int) -> Network:
    net = Network(WideResNet(28, width, 0), {"linear": "linear"}, 10)
    fill(net, {str(name): ours(str(name)) for name in names}, 31)
    return net


def images(seed: int, number: int = 4) -> Tensor:
    return torch.from_numpy(np.random.RandomState(seed).randn(number, 3, 32, 32).astype(np.float32))


def number_of_parameters(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("width", [2, 1])
@uses("network", "wrn28_{width}/*")
@torch.no_grad()
def test_the_wide_residual_network(v, width):
    case = f"wrn28_{width}"
    net = wide_resnet(v[f"{case}/names"], width)
    state = net.state_dict()
    shapes = ["x".join(map(str, state[ours(str(name))].shape)) for name in v[f"{case}/names"]]
    assert shapes == v[f"{case}/shapes"].tolist()
    assert number_of_parameters(net) == v[f"{case}/parameters"]
    for mode, key in ((False, "logits_eval"), (True, "logits_train"), (False, "logits_eval_after")):
        np.testing.assert_allclose(net.train(mode)(images(32)).numpy(), v[f"{case}/{key}"], rtol=0, atol=1e-4)


@uses("network", "cifar_resnet50/*")
@torch.no_grad()
def test_resnet50_for_small_images(v):
    net = cifar_resnet50()
    fill(net, {str(name): name.replace("shortcut", "downsample") for name in v["cifar_resnet50/names"]}, 33)
    assert number_of_parameters(net) == v["cifar_resnet50/parameters"]
    features = net.train()(images(34, len(v["cifar_resnet50/features_train"])))
    np.testing.assert_allclose(features.numpy(), v["cifar_resnet50/features_train"], rtol=0, atol=1e-3)


class Scalar(nn.Module):
    """A parameter, a buffer, and an integer buffer such as BatchNorm's, which the average copies."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))
        self.register_buffer("statistic", torch.zeros(()))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))


@pytest.mark.parametrize("decay", [0.9, 0.999])
@uses("network", "ema/values", "ema/buffer_values", "ema/decay_{decay}_*")
def test_the_average_of_a_network(v, decay):
    case, net = f"ema/decay_{decay}", Scalar()
    ema, weights, statistics = Ema(net, decay), [], []
    for step, (weight, statistic) in enumerate(zip(v["ema/values"], v["ema/buffer_values"], strict=True)):
        net.weight.data.fill_(float(weight))
        net.statistic.fill_(float(statistic))
        ema.update(step)
        weights.append(ema.network.weight.item())
        statistics.append(ema.network.statistic.item())
    np.testing.assert_allclose(weights, v[f"{case}_averages"], rtol=0, atol=1e-6)
    np.testing.assert_allclose(statistics, v[f"{case}_buffers"], rtol=0, atol=1e-6)
    # the decay of a step is what of the old average is left when the new value is 0
    decays = []
    for step in range(len(v["ema/values"])):
        ema.network.weight.fill_(1.0)
        net.weight.data.fill_(0.0)
        ema.update(step)
        decays.append(ema.network.weight.item())
    np.testing.assert_allclose(decays, v[f"{case}_decays"], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name, file",
    [
        ("aves_fixmatch", "semi_aves/fixmatch"),
        ("aves_crest", "semi_aves/crest_plus"),
        ("cifar10_crest", "cifar10/crest"),
    ],
)
@uses("network", "lr/{name}", "lr/{name}_*")
def test_learning_rates_of_the_configurations(v, name, file):
    solver = load(ROOT / "configs" / f"{file}.yaml").SOLVER
    steps, expected = v[f"lr/{name}_steps"].tolist(), v[f"lr/{name}"]
    if not v[f"lr/{name}_applied"]:  # the published code makes the scheduler, but never steps it
        assert {rate(step, solver) for step in steps} == {expected[0]}
        solver = SimpleNamespace(**{**solver, "SCHEDULE": "cosine"})
    np.testing.assert_allclose([rate(step, solver) for step in steps], expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("schedule", ["multi_step", "cosine"])
@uses("network", "lr/short_{schedule}")
def test_learning_rates_of_a_short_run(v, schedule):
    solver = SimpleNamespace(BASE_LR=0.03, WARMUP_ITERS=3, SCHEDULE=schedule, STEPS=[4, 6], GAMMA=0.1, MAX_ITER=12)
    rates = [rate(step, solver) for step in range(12)]
    np.testing.assert_allclose(rates, v[f"lr/short_{schedule}"], rtol=0, atol=1e-12)


def batches_of_fixmatch():
    rs = np.random.RandomState(36)
    for step in range(6):
        labeled, labels, weak = rs.randn(4, 3, 32, 32), rs.randint(0, 10, 4), rs.randn(8, 3, 32, 32)
        strong = weak + 0.3 * rs.randn(8, 3, 32, 32)
        pixels, *views = (torch.from_numpy(x.astype(np.float32)) for x in (labeled, weak, strong))
        yield Batch((pixels,), torch.from_numpy(labels), tuple(views), torch.arange(8)), step / 6


def sums(net: nn.Module) -> list[float]:
    """The sum of the parameters, of their squares, and of the floating-point buffers."""
    parameters = [p.detach().double() for p in net.parameters()]
    buffers = [b.double().sum().item() for b in net.buffers() if b.is_floating_point()]
    return [sum(p.sum().item() for p in parameters), sum(p.square().sum().item() for p in parameters), sum(buffers)]


@uses("network", "fixmatch/*", "wrn28_1/names")
def test_six_steps_of_fixmatch(v):
    net = wide_resnet(v["wrn28_1/names"], 1).train()
    facts = Facts(10, torch.ones(10), 8, feature_dim=64)
    pieces = assemble("fixmatch", {"linear": ("cross_entropy", "threshold(0.15) | one_hot")}, facts)
    schedule = SimpleNamespace(BASE_LR=0.03, WARMUP_ITERS=2, SCHEDULE="multi_step", STEPS=[4], GAMMA=0.1, MAX_ITER=6)
    rates = [rate(step, schedule) for step in range(6)]
    np.testing.assert_allclose(rates, v["fixmatch/lr"], rtol=0, atol=1e-12)
    found: dict[str, list] = {"parameter_sums": [], "average_sums": []}

    def after(step: int, average: nn.Module) -> None:
        found["parameter_sums"].append(sums(net))
        found["average_sums"].append(sums(average))

    names = ["linear/labeled", "linear/unlabeled"]
    trained = train(net, pieces, batches_of_fixmatch(), names, Solver(rates.__getitem__, 0.6), after)
    # Rounding grows: from the fourth step on, another processor or order of summation changes a loss by 1e-4
    # or so, and the sums of squares by 2e-5.
    np.testing.assert_allclose(trained.losses[:3], v["fixmatch/losses"][:3], rtol=1e-5)
    np.testing.assert_allclose(trained.losses, v["fixmatch/losses"], rtol=1e-3)
    np.testing.assert_array_equal(stacked(trained.seen["linear"], "kept"), v["fixmatch/weights"])
    for key, values in found.items():
        total, *others = np.transpose(values)
        np.testing.assert_allclose(total, v[f"fixmatch/{key}"][:, 0], rtol=2e-4)
        np.testing.assert_allclose(others, v[f"fixmatch/{key}"][:, 1:].T, rtol=5e-5)
    for prefix, each in (("parameter", net), ("average", trained.average)):
        parameters = dict(each.named_parameters())
        means = [parameters[ours(str(name))].double().mean().item() for name in v["fixmatch/names"]]
        np.testing.assert_allclose(means, v[f"fixmatch/{prefix}_means"], rtol=0, atol=1e-4)
    with torch.no_grad():
        for key, each in (("logits_eval", net), ("average_logits_eval", trained.average)):
            np.testing.assert_allclose(each.eval()(images(32)).numpy(), v[f"fixmatch/{key}"], rtol=0, atol=1e-2)
