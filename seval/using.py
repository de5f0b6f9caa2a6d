"""What main.py does with a run that is done: classify image files, and export its network."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from tabulate import tabulate

from seval.build import device
from seval.config import load
from seval.defaults import DEFAULTS
from seval.errors import ConfigError, memory_short
from seval.export import export
from seval.files import check_replaceable, told
from seval.ids import whole
from seval.inference import Classifier, load_network
from seval.keys import STANDARD
from seval.memory import keep_memory
from seval.predict import Files, Predicted, predict
from seval.run import Run
from seval.text import printable, short, short_line, shown

_ROWS = 50  # classes that are counted on the screen


def by_id(word: str, overrides: Sequence[str]) -> Run:
    """The run whose id begins with `word`, or that is in the folder `word`, with the settings of its config.yaml.

    Raises `ConfigError` if there is none or several, and for overrides that would make it another run.
    """
    given = dict(zip(overrides[::2], overrides[1::2], strict=True))
    path = Path(word)
    output = path.parent if len(path.parts) > 1 else Path(given.get("OUTPUT_DIR") or DEFAULTS.OUTPUT_DIR)
    (id,) = whole([word], output)
    run = Run(load(output / id / "config.yaml", [*overrides, "OUTPUT_DIR", str(output)]))
    if run.id != id:
        why = "with these settings it would be" if overrides else "its config.yaml means, to this code,"
        keys = "--run allows only keys that cannot change a result, such as DATASET.ROOT and GPU_ID"
        raise ConfigError(f"run {id} cannot be used: {why} run {run.id}; {keys}")
    return run


def use(run: Run, args: argparse.Namespace) -> int:
    """Do what --predict and --export ask for. Returns the exit code; raises `SevalError`."""
    try:
        return _use(run, args)
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        print("error: interrupted; no file was written", file=sys.stderr)
        return 130
    except OSError as error:
        raise ConfigError(str(error)) from None
    except (MemoryError, RuntimeError) as error:
        if not memory_short(error):
            raise
        raise ConfigError(f"memory is short ({short_line(error, 200)}); use a machine with more") from None


def _use(run: Run, args: argparse.Namespace) -> int:
    out, target = Path(args.out or "predictions.csv"), Path(args.export or "")
    files = Files(args.predict or ())
    if args.predict:
        for word in args.predict:
            if word.upper().partition("=")[0] in STANDARD and not os.path.exists(word):
                raise ConfigError(
                    f"{short(word)} after --predict is a key, not a path; write KEY VALUE pairs before it"
                )
        next(iter(files))  # raises if the first path is wrong, before the network is loaded
        _check_target(out, "--out")
    if args.export:
        if target.suffix != ".pt2":
            raise ConfigError(f"--export is {short(args.export)}, but the name of the file must end in .pt2")
        _check_target(target, "--export")
        _check_target(target.with_suffix(".md"), "--export")
    keep_memory()
    if run.cfg.RUNTIME.THREADS:
        torch.set_num_threads(run.cfg.RUNTIME.THREADS)
    classifier = load_network(run, device(run.cfg.GPU_ID))
    name, offset = classifier.offset(args.offset or "")
    about = {"run": run.id, "offset": name}
    if args.predict:
        bar = {"auto": None, "bar": True}.get(run.cfg.RUNTIME.PROGRESS, False)
        found = predict(classifier, files, out, offset, top=_top(args.top, classifier), bar=bar)
        about |= _said(found, out, classifier, name, args.json)
    if args.export:
        card = export(run, classifier, target, name)
        about |= {"export": str(target), "card": str(card)}
        if not args.json:
            print(f"run {run.id}, offset {name}: {printable(str(target))}, described in {printable(str(card))}")
    if args.json:
        print(json.dumps(about, indent=1))
    return 0


def _top(word: str | None, classifier: Classifier) -> int:
    classes = len(classifier.class_names)
    if word is None:
        return 1
    if not word.isdecimal() or not 1 <= int(word[:10]) <= classes:
        raise ConfigError(f"--top is {short(word)}, but must be a whole number from 1 to {classes}, the classes")
    return int(word)


def _check_target(path: Path, option: str) -> None:
    """Raise an error if a file cannot be written there, before work begins."""
    name = f"{option} {printable(str(path))}"
    if not path.parent.is_dir():
        raise ConfigError(f"{name}: there is no folder {printable(str(path.parent))}; create it first")
    if path.is_dir():
        raise ConfigError(f"{name}: it is a folder; name a file in it")
    if not os.access(path.parent, os.W_OK):
        raise ConfigError(f"{name}: files cannot be written into that folder; choose another one")
    try:
        check_replaceable(path)
    except OSError as error:
        raise told(error, "write", path) from None


def _said(found: Predicted, out: Path, classifier: Classifier, offset: str, as_json: bool) -> dict[str, object]:
    """Print what came of the files; or, for JSON, return it."""
    images = found.classes.total()
    if not as_json:
        print(f"{images} images: {printable(str(out))} (run {classifier.run_id}, offset {offset})")
        ranks = found.classes.most_common()
        rows = [(printable(name), count, f"{count / images:.1%}") for name, count in ranks[:_ROWS]]
        heads, sides = ["predicted class", "images", "share"], ("left", "right", "right")
        print(tabulate(rows, heads, disable_numparse=True, colalign=sides))
        if len(ranks) > _ROWS:
            print(f"and {len(ranks) - _ROWS} more classes")
    if found.bad:
        lines = [f"  {printable(path)}: {reason}" for path, reason in found.reasons.items()]
        lines += [f"  and {found.bad - len(lines)} more"] if found.bad > len(lines) else []
        files = "1 file" if found.bad == 1 else f"{found.bad} files"
        head = f"warning: {files} could not be read as an image and left no row in the table:"
        print(shown("\n".join([head, *lines])), file=sys.stderr)
    counts = {name: found.classes[name] for name in classifier.class_names}
    return {"out": str(out), "images": images, "classes": counts, "bad": found.bad, "reasons": found.reasons}
