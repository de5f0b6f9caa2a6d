"""The captured training pass against the usual one: with a stand-in for CUDA's capture, and on a GPU."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from seval.models.captured import Captured
from seval.models.network import Network
from seval.models.wide_resnet import WideResNet
from seval.run import Run
from seval.train import update
from tests.settings import small


class StandIn:
    """Does what can be seen of CUDA's capture: passes that warm up, and a result that the next call overwrites."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def __call__(self, module: nn.Module, sample: tuple[Tensor, ...]):
        self.shapes.append(tuple(sample[0].shape))
        last: list[Tensor] = []
        for _ in range(3):
            torch.autograd.grad(module(*sample).sum() * torch.rand(()), list(module.parameters()))

        def call(images: Tensor) -> Tensor:
            for features in last:
                features.data.fill_(torch.nan)
            last[:] = [module(images)]
            return last[0]

        return call


def refused(module: nn.Module, sample: tuple[Tensor, ...]):
    module(*sample)
    raise RuntimeError("operation not permitted\n  when a stream is capturing")


def network(half: bool = False) -> Network:
    torch.manual_seed(0)
    return Network(WideResNet(10, 1, 0, 1), {"linear": "linear"}, 3, half=half).train()


def trained(net: Network, sizes=(6, 6, 6)) -> list[Tensor]:
    """Features, gradients, the state of network and generators after a step for each size of batch."""
    images, optimizer, seen = torch.Generator().manual_seed(1), torch.optim.SGD(net.parameters(), 0.1), []
    torch.manual_seed(2)
    for n in sizes:
        optimizer.zero_grad()
        features = net.features(torch.rand(n, 1, 8, 8, generator=images))
        net.classify(features, "linear").square().sum().backward()
        optimizer.step()
        seen += [features.detach()] + [p.grad for p in net.parameters() if p.grad is not None]
    return [*seen, *net.state_dict().values(), torch.get_rng_state()]


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("capture", [StandIn(), refused])
def test_a_captured_network_trains_as_before(capture, half, capsys):
    net = network(half)
    plain, net.captured = deepcopy(net), Captured(net.backbone, half, capture)
    assert all(map(torch.equal, trained(plain, (6, 4, 6)), trained(net, (6, 4, 6))))
    said = "the network is not captured as a CUDA graph (operation not permitted when a stream is capturing)"
    assert capsys.readouterr().err == (f"{said}; training goes on\n" if capture is refused else "")
    assert list(net.state_dict()) == list(plain.state_dict())


def test_there_is_one_graph_for_each_shape_and_none_for_evaluation_and_teaching():
    net, capture = network(), StandIn()
    net.captured = Captured(net.backbone, False, capture)
    trained(net, (6, 4, 6, 4))
    with torch.no_grad():
        net.features(torch.rand(5, 1, 8, 8))
    net.eval().features(torch.rand(3, 1, 8, 8))
    assert capture.shapes == [(6, 1, 8, 8), (4, 1, 8, 8)]


def test_a_second_pass_before_the_first_went_back_leaves_the_graph_alone():
    net, images = network(), torch.rand(2, 6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, net.captured = deepcopy(net), Captured(net.backbone, False, StandIn())
    for it in (plain, net):
        for _ in range(2):
            sum(it.features(part).square().sum() for part in images).backward()
    assert all(
        torch.equal(p.grad, q.grad) for p, q in zip(plain.backbone.parameters(), net.backbone.parameters(), strict=True)
    )


def test_nothing_is_captured_on_a_cpu_and_the_key_is_not_part_of_the_identity(tmp_path):
    run, off = (Run(small("fixmatch", tmp_path, "RUNTIME.CAPTURE", value)) for value in ("auto", "off"))
    assert run.id == off.id
    assert run.build({}).net.captured is None


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("method", ["fixmatch", "mixmatch", "mean_teacher"])
def test_on_a_gpu_captured_equals_eager_and_resumes(method, precision, tmp_path, capsys):
    def losses(capture: str, first: int = 0, state: dict | None = None) -> tuple[list[dict], list[dict], Network]:
        """Of the steps from the first to the fifth, with the state after each."""
        cfg = small(method, tmp_path, "RUNTIME.CAPTURE", capture, "GPU_ID", 0, "SOLVER.PRECISION", precision)
        training = Run(cfg).build({})
        if state:
            training.load_state_dict(state)
        steps = [(update(training, step), deepcopy(training.state_dict())) for step in range(first, 5)]
        return *map(list, zip(*steps, strict=True)), training.net

    expected, states, eager = losses("off")
    assert eager.captured is None
    for first, before in ((0, None), (3, states[2])):
        found, _, captured = losses("auto", first, before)
        assert captured.captured and captured.captured.graphs and not capsys.readouterr().err
        assert found == expected[first:]
        assert all(map(torch.equal, eager.state_dict().values(), captured.state_dict().values()))
