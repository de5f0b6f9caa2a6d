"""A model card: what a network was made of, what it reached, and what its probabilities assume, in Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any

from tabulate import tabulate

from seval.inference import Classifier
from seval.text import printable

#: What the probabilities with each offset assume.
LIMITS = {
    "none": "The probabilities are those of the training, whose labels are imbalanced: rare classes are predicted "
    "less often than they occur where all classes are equally frequent.",
    "logit_adjusted": "The log of the class frequencies of the labels is taken off the logits. This assumes that the "
    "network learned just these frequencies, and that all classes are equally frequent where it is used.",
    "seval": "A log offset, learned on held-out labels so that the mean likelihood over the classes is largest, is "
    "taken off the logits. This assumes that all classes are equally frequent where the network is used, and that the "
    "held-out labels were enough: the offset of a class with few of them is uncertain.",
}
LIMITS["cdmad"] = (
    "The logits for an image without content are taken off. This assumes that they are what the classifier is biased "
    "by, whatever the class frequencies were."
)
LIMITS["bias"] = (
    "The bias of the classifier is taken off. This assumes that it holds what the imbalance of the data left behind "
    "when the loss was adjusted for it, and nothing about the classes themselves."
)
LIMITS["seval_smoothed"] = LIMITS["seval"]


def card(record: Mapping[str, Any], classifier: Classifier, offset: str, name: str) -> str:
    """The card of the file `name`, whose probabilities have this offset, by the record of its run."""
    parts = [f"# {name}", _summary(record, classifier, offset), "## Intended use"]
    parts += ["*To be written by whoever publishes the model.*", "## Data", _data(record, classifier)]
    parts += ["## Numbers", *_numbers(record), "## Recall of each class", _recall(record, classifier)]
    parts += ["## Limits", _limits(offset), "## Settings", _settings(record)]
    return "\n\n".join(parts) + "\n"


def _summary(record: Mapping[str, Any], classifier: Classifier, offset: str) -> str:
    form, made = classifier.stored, record.get("provenance", {})
    kind = "gray" if form.channels == 1 else "RGB"
    commit = f"commit {made.get('commit') or 'unknown'}{' with changes' if made.get('dirty') else ''}"
    return (
        f"A classifier of images into {len(classifier.class_names)} classes: the averaged network of run "
        f"{classifier.run_id} ({_plain(record.get('method'))}, {record.get('steps')} steps, {commit}). It takes uint8 "
        f"{kind} images (N, {form.channels}, H, W), resizes them to {form.height} x {form.width} pixels, and gives "
        f"probabilities (N, {len(classifier.class_names)}) with the test-time offset `{offset}`."
    )


def _data(record: Mapping[str, Any], classifier: Classifier) -> str:
    lines = [f"- {key}: {_plain(value or 'not stated')}" for key, value in classifier.data.items()]
    for name, split in record["splits"].items():
        counts, unknown = split["class_counts"], split.get("unknown", 0)
        if any(counts):
            lines.append(f"- {name} images: {sum(counts)}, {min(counts)} to {max(counts)} per class")
        if unknown:
            lines.append(f"- {name} images of unknown class: {unknown}")
    return "\n".join(lines)


def _numbers(record: Mapping[str, Any]) -> Iterator[str]:
    yield (
        f"In percent, of the averaged network: the last of {record['evaluations']} evaluations, median and mean of the "
        "last 20, the evaluation that is best on the validation images, and the best on the test images, which "
        "flatters. `none`, `logit_adjusted` and others are what is taken off the logits."
    )
    for split, networks in record["results"].items():
        rows = [
            (f"`{offset}`", metric, *(_percent(value) for value in protocols.values()))
            for offset, metrics in networks["ema"].items()
            for metric, protocols in metrics.items()
            if any(value is not None for value in protocols.values())
        ]
        heads = ["offset", "metric", *next(iter(next(iter(networks["ema"].values())).values()))]
        table = tabulate(rows, heads, tablefmt="pipe", disable_numparse=True)
        yield f"Of the {split} images:\n\n{table}"


def _recall(record: Mapping[str, Any], classifier: Classifier) -> str:
    labels, found = record["splits"]["labeled"]["class_counts"], record["per_class"]
    rows = [
        (_plain(name), labels[i], *(_percent(found[offset]["recall"][i]) for offset in found))
        for i, name in enumerate(classifier.class_names)
    ]
    table = tabulate(rows, ["class", "labels", *(f"`{o}`" for o in found)], tablefmt="pipe", disable_numparse=True)
    return f"In percent, of the test images at the last evaluation, by offset:\n\n{table}"


def _limits(offset: str) -> str:
    return "\n".join(
        [
            f"- {LIMITS.get(offset, 'What this offset assumes is said where its rule is described.')}",
            "- Every image gets one of the classes, also an image that shows none of them.",
            "- The probabilities were not calibrated. The numbers hold for images like the test images.",
            "- Images of other sizes are resized without regard to their aspect ratio.",
        ]
    )


def _settings(record: Mapping[str, Any]) -> str:
    rows = [(f"`{key}`", f"`{_plain(value)}`") for key, value in record["delta"].items()]
    return tabulate(rows, ["differs from the default", "value"], tablefmt="pipe", disable_numparse=True)


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{100 * share:.2f}"


def _plain(value: object) -> str:
    """Text for a cell of a table in Markdown."""
    return printable(str(value)).replace("|", r"\|")
