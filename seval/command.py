"""What main.py does once its arguments are read: describe, train or evaluate one run, and print the outcome."""

import argparse
import json
import os
import shlex
import signal
import sys
from pathlib import Path

import torch
from tabulate import tabulate

from seval.config import delta, load, read_file
from seval.data.own_set import notes
from seval.defaults import node_of
from seval.errors import ConfigError, Interrupted, MissingPrerequisite, RecordError, SevalError, memory_short
from seval.evaluate import LAST
from seval.keys import pairs, some
from seval.places import ROOT, called, found
from seval.provenance import made
from seval.run import Run
from seval.signals import listening
from seval.text import printable, short, short_line, shown
from seval.using import by_id, use


def command(args: argparse.Namespace) -> int:
    """Do what the arguments of main.py say. Returns the exit code; errors go to stderr."""
    try:
        if args.list_methods:
            return _shown(_list_methods(args.json))
        run = _chosen(args)
        if args.predict or args.export:
            return _shown(use(run, args))
        if args.again and not args.dry_run and (old := run.set_aside()):
            print(f"the run is done again; what was there is in {old}", file=sys.stderr)
        if args.dry_run:
            return _shown(_describe(run, args.json))
        if args.eval_only:
            return _shown(_print_line(run, run.evaluate(), args.json))
        if args.resume and not run.record() and not (run.folder / "checkpoint.pt").exists():
            raise ValueError(
                f"nothing to resume: run {run.id} has no checkpoint in {run.folder}; start it without --resume"
            )
        with listening() as stop:
            chain = run.chain() if args.with_prerequisites else [run]
            for number, each in enumerate(chain, start=1):
                each.phase = f"phase {number} of {len(chain)}" if len(chain) > 1 else ""
                _say_done(each)
                _warn(each)
                done = each.execute(stop)
        return _shown(_print_record(run, done, args.json))
    except MissingPrerequisite as error:
        return _fail(
            2, f"{error}; run first:\n  {_words(error.run, run.cfg.PREREQUISITE, args)}\nor add --with-prerequisites"
        )
    except Interrupted as error:
        assert stop.signal is not None  # what it was interrupted by
        print(f"{stop.signal.name}: {error}; the same command resumes from there", file=sys.stderr)
        return 130 if stop.signal == signal.SIGINT else error.exit_code
    except SevalError as error:
        return _fail(error.exit_code, str(error))
    except ValueError as error:
        return _fail(2, str(error))
    except BrokenPipeError:  # a reader such as `head` has closed the pipe
        _drop_output()
        return 0
    except OSError as error:
        _drop_output()
        return _fail(2, f"{error}; fix that, and the same command resumes the run")
    except (MemoryError, RuntimeError) as error:
        if not memory_short(error):
            raise
        words = f"memory is short ({short_line(error, 200)}); the last checkpoint is kept"
        return _fail(2, f"{words}: the same command resumes from it where there is more")
    except KeyboardInterrupt:
        return _fail(130, "interrupted; the same command resumes from the last checkpoint")


def _shown(code: int) -> int:
    """The exit code, once all that was printed has been taken. Raises `OSError`."""
    if sys.stdout:  # None where it is closed
        sys.stdout.flush()
    return code


def _drop_output() -> None:
    """Where standard output takes nothing more, forget what it holds, so that the end of Python does not try again."""
    try:
        _shown(0)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _chosen(args: argparse.Namespace) -> Run:
    """The run that the arguments describe. Raises `ConfigError`; says where it will train if that may surprise."""
    args.overrides = pairs(args.overrides)
    if args.run:
        return by_id(args.run, args.overrides)
    allowed = ["RUNTIME.OTHER_CODE", "resume"] if args.resume else []
    run = Run(load(args.config_file or (), [*args.overrides, *allowed]))
    chosen = {*args.overrides[::2], *(read_file(found(args.config_file)) if args.config_file else ())}
    if "DATASET.NAME" not in chosen:
        raise ConfigError(_without_data_set(args.config_file))
    trains = not (args.dry_run or run.done())
    if trains and "GPU_ID" in chosen and run.cfg.GPU_ID >= 0 and not torch.cuda.is_available():
        print(f"warning: GPU_ID is {run.cfg.GPU_ID}, but no GPU was found: running on the CPU", file=sys.stderr)
    return run


def _say_done(run: Run) -> None:
    """If the run has a record already, say so, and whether other code made it."""
    if run.cfg.RUNTIME.PROGRESS != "off" and (done := run.record()):
        folder = printable(str(run.folder))
        other = "; the code here differs: --again trains it anew" if run.made_by_other_code(done) else ""
        print(f"{run.title}  run {run.id} in {folder}: done before {made(done)}".rstrip() + other, file=sys.stderr)


def _warn(run: Run) -> None:
    """Say what a user should know of the splits of an own set that is about to be trained on."""
    if node_of(run.cfg.DATASET.NAME) == "OWN" and not run.done():
        for note in notes(run.image_set, run.splits.held_out):
            print(shown(f"warning: {note}"), file=sys.stderr)


def _without_data_set(file: str | None) -> str:
    if not file:
        return "no data set is chosen; choose a --config-file, such as configs/tiny/fixmatch.yaml, or set DATASET.NAME"
    path = found(file)
    others = [other.parent.name for other in sorted(path.parent.parent.glob(f"*/{path.name}")) if other != path]
    same = [str(Path(file).parent.parent / folder / path.name) for folder in others]
    remedy = f"a data set is added to it by {some(same)}" if same else "set DATASET.NAME"
    return f"{file} is a method without a data set; {remedy}"


def _list_methods(as_json: bool) -> int:
    methods = []
    for file in sorted((ROOT / "configs" / "methods").glob("*.yaml")):
        cfg = load(file)
        policy = {name.lower(): head.POLICY for name, head in cfg.HEADS.items() if head.LABELED_LOSS}
        about = {"name": file.stem, "category": cfg.METHOD.CATEGORY, "algorithm": cfg.ALGORITHM.NAME}
        methods.append(about | {"policy": policy, "source": cfg.METHOD.SOURCE, "licence": cfg.METHOD.LICENCE})
    if as_json:
        print(json.dumps(methods, indent=1))
        return 0
    rows = [about | {"policy": "\n".join(about["policy"].values())} for about in methods]
    print(tabulate(rows, headers="keys"))
    print("\nlicence is that of the authors' code, where it was seen; none is a code without one.")
    print("configs/SET/NAME.yaml adds a data set's settings to a method. One line per head; the last is evaluated.")
    return 0


def _fail(code: int, message: str) -> int:
    print(shown(f"error: {message}"), file=sys.stderr)
    return code


def _words(run: Run, keys: list, args: argparse.Namespace) -> str:
    """The command for `run`: with another file of the same folder if it gives this run, else with more overrides."""
    given = args.config_file
    for path in (
        sorted(found(given).parent.glob("*.yaml"), reverse=True) if given else ()
    ):  # reversed: dataset.yaml late
        file = Path(given).with_name(path.name)
        try:
            if Run(load(file, args.overrides)).id == run.id:
                return shlex.join([*called("main.py"), "--config-file", str(file), *args.overrides])
        except ValueError:
            continue
    file = ["--config-file", given] if given else []
    keys = keys if "PREREQUISITE" in keys[::2] else ["PREREQUISITE", [], *keys]
    return shlex.join([*called("main.py"), *file, *args.overrides, *map(str, keys)])


def _describe(run: Run, as_json: bool) -> int:
    run.check()
    for each in run.chain():
        _warn(each)
    chain = [{"id": each.id, "folder": str(each.folder), "state": each.state()} for each in run.chain()]
    about = {
        "id": run.id,
        "folder": str(run.folder),
        "delta": delta(run.cfg),
        "chain": chain,
        "data": run.fingerprint,
        "splits": run.manifest(),
    }
    if as_json:
        print(json.dumps(about, indent=1))
        return 0
    print(f"run {run.id} in {printable(str(run.folder))}")
    rows = [(key, printable(str(value))) for key, value in about["delta"].items()]
    print(tabulate(rows, headers=["differs from the default", ""], disable_numparse=True))
    print()
    print(
        tabulate(
            [(each["id"], each["state"], printable(each["folder"])) for each in chain], ["chain", "state", "folder"]
        )
    )
    print()
    rows = [
        (name, sum(split["class_counts"]), " ".join(map(str, split["class_counts"])), split["sha256"][:12])
        for name, split in about["splits"].items()
    ]
    print(tabulate(rows, headers=["split", "images", "images per class", "sha256 of the indices"]))
    return 0


def _print_line(run: Run, line: dict, as_json: bool) -> int:
    if as_json:
        print(json.dumps(line, indent=1))
        return 0
    print(f"run {run.id} at step {line['step']}")
    rows = [
        (split, network, offset, f"{values['top1']:.2%}", f"{values['balanced_accuracy']:.2%}")
        for split in ("valid", "test")
        for network, offsets in line.get(split, {}).items()
        for offset, values in offsets.items()
    ]
    print(tabulate(rows, headers=["split", "network", "offset", "top-1", "balanced accuracy"], disable_numparse=True))
    return 0


def _print_record(run: Run, done: dict, as_json: bool) -> int:
    if as_json:
        print(json.dumps(done, indent=1))
        return 0
    try:
        offsets, few = done["results"]["test"]["ema"], done["evaluations"] < LAST
        rules = list(offsets["none"]["top1"])
        rows = [
            (
                offset,
                *(_percent(values["top1"][rule]) for rule in rules),
                *(_percent(values[metric]["median20"]) for metric in ("balanced_accuracy", "few")),
            )
            for offset, values in offsets.items()
        ]
    except (LookupError, TypeError, ValueError, AttributeError):  # only a record of 0.1, which has no checksum
        path = run.folder / "record.json"
        raise RecordError(f"{path} is damaged (its results are {short(done['results'])}); move it away") from None
    names = [f"{rule} (of {done['evaluations']})" if few and rule.endswith("20") else rule for rule in rules]
    print(f"run {run.id} done: {printable(str(run.folder / 'record.json'))}")
    print("top-1 accuracy on the test set of the averaged network, by test-time logit offset and selection rule;")
    print("balanced accuracy, and recall of the classes with at most 19 labels, by median20:")
    print(tabulate(rows, headers=["offset", *names, "balanced", "few-shot"], disable_numparse=True))
    return 0


def _percent(share: float | None) -> str:
    return "—" if share is None else f"{share:.2%}"
