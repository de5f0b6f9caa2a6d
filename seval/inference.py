"""The network of a finished run, for images that it has not seen: exactly what an evaluation of the run computes."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from seval import record
from seval.algorithms import ALGORITHMS
from seval.algorithms.base import Algorithm
from seval.build import build_network
from seval.config import with_overrides
from seval.data import hdf5
from seval.data.augment import Geometry
from seval.data.image_set import Encoded, ImageSet, fingerprint
from seval.errors import ConfigError, RecordError
from seval.evaluate import GIVEN_OFFSETS, logits_by_head, test_offsets
from seval.models.network import Network
from seval.policy.base import Facts, Policy
from seval.policy.language import build_policy
from seval.run import Run


class Stored(NamedTuple):
    """The form in which a prepared set holds its images, before the evaluation view is made."""

    channels: int
    height: int
    width: int
    encoded: bool  # as JPEG files, which are decoded to this size


class Classifier(nn.Module):
    """uint8 images (N, c, H, W) as the run's data set holds them -> logits (N, C) of its averaged network.

    Evaluation views and normalization are inside, and of several heads those that the run is evaluated by answer.
    `offsets` are the log offsets (C,) that can be taken off the logits before the softmax, by name: `none`,
    `logit_adjusted`, and those that the run learned, such as `seval`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        run: Run,
        network: Network,
        algorithm: Algorithm,
        image_set: ImageSet,
        offsets: Mapping[str, Tensor],
    ) -> None:
        super().__init__()
        self.run_id, self.class_names, self.offsets = run.id, image_set.class_names, dict(offsets)
        about = {key: image_set.attributes.get(key) for key in ("source", "license", "credit")}
        self.data: dict[str, object] = {"name": image_set.name, **about, "fingerprint": fingerprint(image_set)}
        self.stored = stored(image_set, run.cfg.DATASET.DECODED_SIZE)
        self.batch: int = run.cfg.SOLVER.EVAL_BATCH  # images at once, as in an evaluation
        self.geometry = Geometry.of(run.cfg.DATASET)
        self.network, self.algorithm = network, algorithm
        self.mean, self.std = (nn.Buffer(torch.tensor(v, dtype=torch.float32)) for v in (image_set.mean, image_set.std))
        self.requires_grad_(False).eval()

    def forward(self, images: Tensor) -> Tensor:
        """uint8 (N, c, H, W) -> logits (N, C) float32."""
        views = self.geometry.evaluation(images)
        return self.algorithm.predict(logits_by_head(self.network, views, self.mean, self.std))

    def offset(self, name: str = "") -> tuple[str, Tensor]:
        """A log offset (C,) and its name; without a name the first that the run learned, such as `seval`, else `none`.

        Raises `ConfigError` if the run has no such offset.
        """
        name = name or next((known for known in self.offsets if known not in GIVEN_OFFSETS), "none")
        if name not in self.offsets:
            raise ConfigError(f"run {self.run_id} has no offset {name!r}; it has {', '.join(self.offsets)}")
        return name, self.offsets[name]


def load_network(run: Run, device: torch.device | str = "cpu") -> Classifier:
    """The averaged network of a run that is done, in evaluation mode.

    Class names, channel statistics and class counts are read from the header and the labels of the prepared data set;
    its images are not read. Raises `RecordError` if the run is not done or its checkpoint is missing, damaged or of
    another run, `DataError` if the data set is not here, and `OSError`.
    """
    checkpoint, done = run.folder / "checkpoint.pt", run.record()
    if not done:
        raise RecordError(f"run {run.id} is not done: there is no record in {run.folder}; train it first")
    if not checkpoint.exists():
        raise RecordError(f"run {run.id} has no checkpoint in {run.folder}, which holds its network; do the run again")
    light = Run(run.cfg)
    light.image_set = images = hdf5.read(hdf5.data_file(run.cfg.DATASET.NAME, run.cfg.DATASET.ROOT), in_blocks=True)
    with torch.device("meta"):  # no weights are drawn, and none downloaded: all of them are in the checkpoint
        network = build_network(
            with_overrides(run.cfg, ["MODEL.PRETRAINED", False]), images.num_classes, len(images.mean)
        )
    counts = torch.bincount(torch.from_numpy(images.train.labels[light.splits.labeled]), minlength=images.num_classes)
    algorithm, policy = _learned(light, network, counts.float())

    def load(state: dict) -> None:
        network.load_state_dict(state["ema"], assign=True)
        algorithm.load_state_dict(state["algorithm"])
        policy.load_state_dict(state["policies"][list(network.classifiers)[-1]])

    expected = {"configuration": run.id, "data": light.fingerprint}
    state = record.restore(checkpoint, expected, load)
    if state["step"] != done["steps"]:
        steps = f"is of step {state['step']}, but its run has {done['steps']} steps"
        raise RecordError(f"{checkpoint} {steps}; move its folder away and do that run again")
    convert_conv2d_weight_memory_format(network, torch.channels_last)
    offsets = {name: offset.to(device) for name, offset in test_offsets(counts.float(), policy).items()}
    return Classifier(run, network, algorithm, images, offsets).to(device)


def _learned(run: Run, network: Network, class_counts: Tensor) -> tuple[Algorithm, Policy]:
    """The algorithm and the policy of the last head, into which a checkpoint can be loaded.

    As when a run is checked, nothing that a prerequisite learned is needed: the checkpoint has it.
    """
    cfg, splits = run.cfg, run.splits
    facts = Facts(
        len(class_counts),
        class_counts,
        num_unlabeled=len(splits.unlabeled),
        num_held_out=1 if cfg.PREREQUISITE or cfg.CURRICULUM else len(splits.held_out),
        feature_dim=network.feature_dim,
        head=list(network.classifiers)[-1],
    )
    recipe = ALGORITHMS.read(cfg.ALGORITHM.NAME)
    head = cfg.HEADS[facts.head.upper()]
    return ALGORITHMS.build(recipe, facts, cfg.ALGORITHM.UNLABELED_WEIGHT), build_policy(head.POLICY, facts)


def stored(image_set: ImageSet, decoded_size: int) -> Stored:
    """How the images of a set are held, encoded images being decoded to squares of `decoded_size`."""
    images, channels = image_set.train.images, len(image_set.mean)
    if isinstance(images, Encoded):
        return Stored(channels, decoded_size, decoded_size, True)
    shape: Sequence[int] = images.shape
    return Stored(channels, shape[2], shape[3], False)
