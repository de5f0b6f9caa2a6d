"""One evaluation (predict, refresh the rules, measure), and the numbers that a run reports under every protocol."""

from collections.abc import Mapping, Sequence
from statistics import fmean, median

import torch
from torch import Tensor

from seval import metrics
from seval.algorithms.base import Head
from seval.build import Training
from seval.data.augment import black, normalize
from seval.data.loader import Images
from seval.defaults import Node
from seval.errors import TrainingError
from seval.models.network import Network
from seval.policy.base import Asked, HeldOut, Policy, PseudoLabels

LAST = 20  # evaluations that the median20 and mean20 protocols use
GIVEN_OFFSETS = ("none", "logit_adjusted")  # test-time offsets of every run; others are learned
KEPT = "the last checkpoint, if there is one, is kept; lower SOLVER.BASE_LR or check the data"


def evaluate(training: Training, step: int, refresh: bool = True) -> dict:
    """Evaluate after `step` steps: refresh the policies and the algorithm, then measure both networks.

    Raises `TrainingError` if a prediction is not finite.
    """
    predictions, cfg = Predictions(training), training.cfg
    for network in predictions.networks:
        if not all(logits.isfinite().all() for logits in predictions.of(network, "test").values()):
            raise TrainingError(f"predictions of the {network} network are not finite after {step} steps; {KEPT}")
    progress = step / cfg.SOLVER.MAX_ITER
    line: dict = {"step": step, "progress": progress, "policy": {}, "algorithm": {}}
    if refresh:
        line["policy"] = {head.name: _refresh(training, head, predictions, progress) for head in training.heads}
        line["algorithm"] = training.algorithm.refresh()
    counts = training.class_counts
    offsets = test_offsets(counts, training.heads[-1].policy)
    for split in ("valid", "test"):
        labels = training.data[split].labels
        if len(labels):
            line[split] = {
                network: measure(training.algorithm.predict(predictions.of(network, split)), labels, offsets, counts)
                for network in predictions.networks
            }
    if training.algorithm.views and due(step, cfg.PERIODS.QUALITY, cfg):
        line["quality"] = _quality(training, training.heads[-1], predictions)
    return line


def test_offsets(class_counts: Tensor, policy: Policy) -> dict[str, Tensor]:
    """By name, what is taken off test logits: log offsets (C,), those that the evaluated head has learned included."""
    adjusted = torch.log(class_counts / class_counts.sum())
    given = dict(zip(GIVEN_OFFSETS, (torch.zeros_like(class_counts), adjusted), strict=True))
    return given | policy.offsets()


def due(step: int, period: int, cfg: Node) -> bool:
    """Whether the evaluation after `step` steps is the last one, or the first at or after a multiple of `period`."""
    return step == cfg.SOLVER.MAX_ITER or step // period > (step - cfg.PERIODS.EVAL) // period


class Predictions:
    """Logits of the averaged (`ema`) and the trained (`raw`) network, computed at most once per split, when needed."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.networks = {"ema": training.ema.network, "raw": training.net}
        self._known: dict[tuple[str, str], dict[str, Tensor]] = {}

    def of(self, network: str, split: str) -> dict[str, Tensor]:
        """The logits (N, C) by head."""
        key, net, it = (network, split), self.networks[network], self.training
        if key not in self._known:
            self._known[key] = predict(net, it.data[split], it.mean, it.std, it.cfg.SOLVER.EVAL_BATCH)
        return self._known[key]


@torch.no_grad()
def predict(net: Network, images: Images, mean: Tensor, std: Tensor, batch: int) -> dict[str, Tensor]:
    """Evaluation views (N, c, H, W) uint8 -> logits (N, C) float32 by head, computed in evaluation mode."""
    training, logits = net.training, {head: [] for head in net.classifiers}
    net.eval()
    for part in images.in_order(batch):
        for head, found in logits_by_head(net, part, mean, std).items():
            logits[head].append(found)
    net.train(training)
    return {head: torch.cat(parts) for head, parts in logits.items()}


def logits_by_head(net: Network, views: Tensor, mean: Tensor, std: Tensor) -> dict[str, Tensor]:
    """Logits (N, C) float32 of one batch of evaluation views (N, c, H, W) uint8."""
    features = net.features(normalize(views, mean, std).contiguous(memory_format=torch.channels_last))
    return {head: net.classify(features, head).float() for head in net.classifiers}


def _refresh(training: Training, head: Head, predictions: Predictions, progress: float) -> dict[str, float]:
    held_out, labels = None, training.data["held_out"].labels
    if len(labels):
        held_out = HeldOut(predictions.of("ema", "held_out")[head.name].double().softmax(1), labels)
    net = training.ema.network

    def blank(name: str, value: float | None) -> Tensor:
        _, image = next(training.data["test"].batches([torch.tensor([0])]))
        like = normalize(image, training.mean, training.std)[0]
        return net.blank(like, black(training.mean, training.std) if value is None else value)[name]

    asked = Asked(lambda: predictions.of("ema", "unlabeled")[head.name].softmax(1), blank, net.bias)
    return head.policy.refresh(held_out, asked, progress)


def _quality(training: Training, head: Head, predictions: Predictions) -> dict:
    labels = training.data["unlabeled"].labels
    plain = predictions.of("ema", "unlabeled")[head.name].softmax(1)
    head.policy.eval()
    pseudo = head.policy(PseudoLabels.of(plain), None)
    head.policy.train()
    return metrics.pseudo_label_quality(plain, pseudo.probs, pseudo.weight > 0, labels, training.class_counts)


def measure(logits: Tensor, labels: Tensor, offsets: Mapping[str, Tensor], class_counts: Tensor) -> dict[str, dict]:
    """By offset name: metrics of the logits (N, C) minus the log offset (C,), with per-class recall and precision."""
    measured = {}
    for name, offset in offsets.items():
        matrix = metrics.confusion((logits - offset).argmax(1), labels, logits.shape[1])
        measured[name] = metrics.summary(matrix, class_counts) | {
            "recall": metrics.numbers(metrics.recall(matrix)),
            "precision": metrics.numbers(metrics.precision(matrix)),
        }
    return measured


def protocols(history: Sequence[dict]) -> dict:
    """Every result of a run under every protocol: results[split][network][offset][metric][protocol].

    The protocols are: last evaluation; median20 and mean20 of the last 20 evaluations; best_on_valid, the evaluation
    with the best top-1 on the balanced validation split; best_on_test, the maximum, which selects on the test set.
    """
    results: dict = {}
    for split in ("test", "valid"):
        for network, offsets in history[-1].get(split, {}).items():
            for offset in offsets:
                values = [line[split][network][offset] for line in history]
                chosen = _best([line.get("valid", {}).get(network, {}).get(offset, {}).get("top1") for line in history])
                results.setdefault(split, {}).setdefault(network, {})[offset] = {
                    metric: _summarize([value[metric] for value in values], chosen)
                    for metric, value in values[-1].items()
                    if not isinstance(value, list)
                }
    return results


def by_class(evaluation: Mapping) -> dict[str, dict[str, list]]:
    """Recall and precision of each class, by offset: of the averaged network on the test split."""
    found = evaluation["test"]["ema"]
    return {offset: {key: values[key] for key in ("recall", "precision")} for offset, values in found.items()}


def _summarize(values: list[float | None], chosen: int | None) -> dict[str, float | None]:
    known = [value for value in values[-LAST:] if value is not None]
    return {
        "last": values[-1],
        "median20": median(known) if known else None,
        "mean20": fmean(known) if known else None,
        "best_on_valid": None if chosen is None else values[chosen],
        "best_on_test": max((value for value in values if value is not None), default=None),
    }


def _best(values: list[float | None]) -> int | None:
    """The index of the first largest value; None if nothing was measured."""
    known = {i: value for i, value in enumerate(values) if value is not None}
    return max(known, key=known.__getitem__) if known else None
