"""Settings of the published configurations that a data set or a method has for itself."""

from __future__ import annotations

from seval.config import load
from seval.defaults import Node
from tests.settings import ROOT


def config(name: str, *overrides: object) -> Node:
    return load(ROOT / "configs" / f"{name}.yaml", overrides)


def test_remixmatch_aligns_to_the_labels_only_where_unlabeled_images_are_distributed_like_them():
    for folder, policy in {"cifar10": "align | sharpen", "cifar100": "align | sharpen", "stl10": "sharpen"}.items():
        assert config(f"{folder}/remixmatch").HEADS.LINEAR.POLICY == policy
