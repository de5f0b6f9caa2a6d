"""From images that nobody prepared for this to a table, predictions and an exported model: scikit-learn's digits.

The 1,797 digits of 8 x 8 pixels (E. Alpaydin, UCI Machine Learning Repository, CC BY 4.0; scikit-learn ships them) are
written as folders, as a CSV list and as NPZ arrays, with a long-tailed labeled part. All three become the same set.

    pip install '.[example]'
    python examples/own_data.py --out build/own_data
"""

from __future__ import annotations

import argparse
import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout also works without being installed

from repro.tables.table import ROOT, Table
from seval.data.hdf5 import read
from seval.data.image_set import fingerprint_0_1

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEST, HEAD, FACTOR = 40, 60, 10.0  # test images of each class; labels of the first class; first class over the last

Part = tuple[np.ndarray, np.ndarray]  # uint8 (N, 8, 8) images and (N,) labels


def parts() -> dict[str, Part]:
    """Test images, a long tail of labels and the rest, unlabeled; each class shuffled by one seed."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    images, labels = np.rint(digits.images * (255 / 16)).astype(np.uint8), digits.target
    random, found = np.random.RandomState(0), {"test": [], "train": [], "unlabeled": []}
    for c in range(len(NAMES)):
        order = random.permutation(np.flatnonzero(labels == c))
        n = TEST + int(HEAD * (1 / FACTOR) ** (c / (len(NAMES) - 1)))
        for name, members in zip(found, (order[:TEST], order[TEST:n], order[n:]), strict=True):
            found[name].append(members)
    index = {name: np.concatenate(members) for name, members in found.items()}
    return {name: (images[i], labels[i]) for name, i in index.items()}


def write_forms(given: dict[str, Part], out: Path) -> None:
    """`folder`/PART/CLASS/*.png, `list.csv`, which names the same files, and `digits.npz`."""
    rows = []
    for name, (images, labels) in given.items():
        for i, (image, label) in enumerate(zip(images, labels, strict=True)):
            of_class = "" if name == "unlabeled" else NAMES[label]
            path = Path("folder", name, of_class, f"{i:04}.png")
            (out / path).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(image).save(out / path)
            rows.append((path.as_posix(), of_class, name))
    with (out / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "split"), *rows])
    arrays = {f"{name}_images": images for name, (images, _) in given.items()}
    arrays |= {f"{name}_labels": labels for name, (_, labels) in given.items() if name != "unlabeled"}
    np.savez(out / "digits.npz", class_names=np.array(NAMES), **arrays)


def call(*words: object) -> None:
    """Show a command of this project and run it, in its own process as a user does."""
    given = [str(word) for word in words]
    print(f"\n$ python {shlex.join(given)}", flush=True)
    environment = {"OMP_NUM_THREADS": "1"} | os.environ
    subprocess.run([sys.executable, str(ROOT / given[0]), *given[1:]], check=True, env=environment)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("build/own_data"), help="folder of everything that is made")
    parser.add_argument("--seeds", nargs="+", default=["0"], help="seeds of each row of the table")
    args = parser.parse_args()
    out = args.out
    out.mkdir(parents=True, exist_ok=True)
    write_forms(parts(), out)
    forms = {
        "digits": ("folder", "--raw", out / "folder"),
        "digits_csv": ("csv", out / "list.csv"),
        "digits_npz": ("npz", out / "digits.npz"),
    }
    for name, words in forms.items():
        call("repro/prepare.py", *words, "--name", name, "--root", out, "--license", "CC BY 4.0")
    prints = {fingerprint_0_1(read(out / f"{name}.h5")) for name in forms}
    assert len(prints) == 1, "folders, CSV and NPZ must give the same arrays"
    print(f"\nfolders, CSV and NPZ gave the same arrays: {prints.pop()[:12]}")

    table, runs = out / "digits.yaml", ("--output-dir", out / "runs")
    call("repro/prepare.py", "digits", "--root", out, "--table", table, "--device", "cpu", "--force")
    table.write_text(re.sub("^seeds: .*$", f"seeds: [{', '.join(args.seeds)}]", table.read_text(), flags=re.M))
    call("repro/submit.py", "--table", table, *runs, "--cluster", "local")
    call("repro/aggregate.py", "--table", table, *runs, "--out", out)
    cells = {cell.row: cell for cell in Table.read(table).cells(["OUTPUT_DIR", str(out / "runs")])}
    id = cells["SEVAL"].runs[int(args.seeds[0])].id
    of = ("--run", id, "OUTPUT_DIR", out / "runs", "DATASET.ROOT", out)
    call("main.py", *of, "--predict", out / "folder" / "test", "--out", out / "predictions.csv")
    call("main.py", *of, "--export", out / "model.pt2")
    return 0


if __name__ == "__main__":
    sys.exit(main())
