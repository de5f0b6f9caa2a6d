"""A run's network as one file that PyTorch loads without this package: uint8 images in, probabilities out."""

import io
import json
from copy import deepcopy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from seval import __version__, files
from seval.card import card
from seval.inference import Classifier
from seval.run import Run

ABOUT = "about.json"  # the names of the extra files in the archive
CARD = "model.md"
_BITS = 22  # of the fraction of Pillow's fixed-point resampling weights


def export(run: Run, classifier: Classifier, path: Path, offset: str) -> Path:
    """Write `path` (.pt2) and beside it a model card of the same name in Markdown, which is returned.

    What a stranger needs is in the archive, too, as the extra files `about.json` and `model.md`. Raises `OSError`.
    """
    record = run.record() or {}
    text, beside = card(record, classifier, offset, path.name), path.with_suffix(".md")
    extra = {ABOUT: json.dumps(about(record, classifier, offset), indent=1, ensure_ascii=False), CARD: text}
    files.replace(path, _archive(classifier, classifier.offsets[offset], extra))
    files.replace(beside, text.encode())
    return beside


def about(record: dict, classifier: Classifier, offset: str) -> dict[str, object]:
    """What the file is and how to use it, for programs."""
    form, made = classifier.stored, record.get("provenance", {})
    return {
        "class_names": list(classifier.class_names),
        "input": {
            "dtype": "uint8",
            "shape": ["N", form.channels, "H", "W"],
            "mode": "L" if form.channels == 1 else "RGB",
            "resized_to": [form.height, form.width],
            "filter": "Pillow's bilinear, horizontally first",
        },
        "output": "probabilities (N, C), in the order of class_names",
        "offset": offset,
        "run": classifier.run_id,
        "method": record.get("method"),
        "commit": made.get("commit"),
        "dirty": made.get("dirty"),
        "data": classifier.data,
        "versions": {"seval": __version__, **made.get("packages", {}), "exported_with_torch": torch.__version__},
    }


def _archive(classifier: Classifier, offset: Tensor, extra: dict[str, str]) -> bytes:
    module = deepcopy(Probabilities(classifier, offset)).cpu().to(memory_format=torch.contiguous_format).eval()
    form, buffer = classifier.stored, io.BytesIO()
    sample = torch.zeros(2, form.channels, form.height + 3, form.width + 5, dtype=torch.uint8)  # no side is another's
    sizes = {0: Dim("batch"), 2: Dim("height"), 3: Dim("width")}
    program = torch.export.export(module, (sample,), dynamic_shapes={"images": sizes})
    torch.export.save(program, buffer, extra_files=extra)
    return buffer.getvalue()


class Probabilities(nn.Module):
    """uint8 (N, c, H, W) of any H, W -> probabilities (N, C): resized as for the data set, then classified."""

    def __init__(self, classifier: Classifier, offset: Tensor) -> None:
        super().__init__()
        self.classifier, self.offset = classifier, nn.Buffer(offset.clone())

    def forward(self, images: Tensor) -> Tensor:
        stored = self.classifier.stored
        return (self.classifier(resize(images, stored.height, stored.width)) - self.offset).softmax(1)


def resize(images: Tensor, height: int, width: int) -> Tensor:
    """uint8 (N, c, H, W) to (N, c, height, width) as `data.pictures.pixels` does it, also where H, W are symbols."""
    wide = _round(images.double() @ _weights(images.shape[3], width).T)  # Pillow rounds between its two passes
    return _round(_weights(images.shape[2], height) @ wide).byte()


def _weights(old: int, new: int) -> Tensor:
    """(new, old) of Pillow's bilinear filter; `data.augment` has the same for sizes that are known."""
    pixel = torch.arange(old, dtype=torch.float64)
    count = torch.ones_like(pixel).sum()
    scale = count / new
    support = scale.clamp(min=1.0)
    center = ((torch.arange(new, dtype=torch.float64) + 0.5) * scale)[:, None]
    first, last = (center - support + 0.5).trunc(), (center + support + 0.5).trunc()
    window = (1 - ((pixel - center + 0.5) / support).abs()).clamp(min=0)
    window = torch.where((pixel >= first) & (pixel < last), window, 0.0)
    return (window / window.sum(1, keepdim=True) * 2**_BITS + 0.5).floor()


def _round(sums: Tensor) -> Tensor:
    return ((sums + 2 ** (_BITS - 1)) * 2.0**-_BITS).floor().clamp(max=255)
