"""Train one run from the command line."""

from __future__ import annotations

import argparse
import json
import os
import shlex
import signal
import sys
from pathlib import Path

from tabulate import tabulate

EXAMPLES = """\
KEY VALUE pairs override the configuration file. seval/defaults.py explains every key. Examples:

  python main.py --config-file configs/tiny/fixmatch.yaml SEED 1
  python main.py --config-file configs/cifar10/fixmatch_seval_load.yaml --with-prerequisites \\
      DATASET.CIFAR10.NUM_LABELED_HEAD 500 DATASET.CIFAR10.NUM_UNLABELED_HEAD 4000 SEED 79 GPU_ID 0
  python main.py --config-file configs/cifar10/fixmatch.yaml --dry-run
  python main.py --list-methods

If the run is already done, its results are printed. If it was interrupted, it resumes from its checkpoint.
SIGTERM, SIGUSR2 and Ctrl-C finish the current step, save a checkpoint and stop; a second Ctrl-C does not save.
Exit codes: 0 done; 2 bad input, or a file cannot be read or written; 3 training failed; 4 another process is training
this run; 75 stopped by SIGTERM or SIGUSR2; 130 stopped by Ctrl-C. After 75 and 130 the same command resumes the run.
"""


def main(argv: list[str] | None = None) -> int:
    """Parse the arguments, run and print the result; errors go to stderr in one line."""
    args = _parse(argv)
    from seval.config import load  # imported late: the packages take seconds to import, and --help should be fast
    from seval.errors import Interrupted, MissingPrerequisite, SevalError
    from seval.run import Run
    from seval.signals import listening

    try:
        if args.list_methods:
            return _list_methods(args.json)
        run = Run(load(args.config_file or (), args.overrides))
        if args.dry_run:
            return _describe(run, args.json)
        _announce_device(run)
        if args.eval_only:
            return _print_line(run, run.evaluate(), args.json)
        if args.resume and not run.record() and not (run.folder / "checkpoint.pt").exists():
            raise ValueError(
                f"nothing to resume: run {run.id} has no checkpoint in {run.folder}; start it without --resume"
            )
        with listening() as stop:
            for each in run.chain() if args.with_prerequisites else [run]:
                done = each.execute(stop)
        return _print_record(run, done, args.json)
    except MissingPrerequisite as error:
        return _fail(
            2, f"{error}; run first:\n  {_command(error.run, run.cfg.PREREQUISITE, args)}\nor add --with-prerequisites"
        )
    except Interrupted as error:
        print(f"{stop.signal.name}: {error}; the same command resumes from there", file=sys.stderr)
        return 130 if stop.signal == signal.SIGINT else error.exit_code
    except SevalError as error:
        return _fail(error.exit_code, str(error))
    except ValueError as error:
        return _fail(2, str(error))
    except BrokenPipeError:  # a reader such as `head` has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(2, f"{error}; fix that, and the same command resumes the run")
    except KeyboardInterrupt:
        return _fail(130, "interrupted; the same command resumes from the last checkpoint")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", metavar="FILE", help="YAML file; overrides the defaults and its _BASE_ files")
    parser.add_argument("--eval-only", action="store_true", help="evaluate the checkpoint; do not train")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="fail if there is no checkpoint to resume from "
        "(without this option, a run that has none starts from step 0)",
    )
    parser.add_argument("--with-prerequisites", action="store_true", help="first do the runs that this run depends on")
    parser.add_argument("--dry-run", action="store_true", help="print id, folder, splits, prerequisites; do not train")
    parser.add_argument("--list-methods", action="store_true", help="print every method with its policy and source")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="for example SEED 79 GPU_ID 0")
    args = parser.parse_args(argv)
    flags = {"--eval-only", "--resume", "--with-prerequisites", "--dry-run", "--list-methods", "--json"}
    for flag in flags & set(args.overrides):  # options may also come after the pairs
        args.overrides.remove(flag)
        setattr(args, flag[2:].replace("-", "_"), True)
    if "--config-file" in args.overrides[:-1]:
        place = args.overrides.index("--config-file")
        args.config_file = args.overrides.pop(place + 1)
        args.overrides.pop(place)
    return args


def _list_methods(as_json: bool) -> int:
    from seval.config import load

    methods = []
    for file in sorted((Path(__file__).parent / "configs" / "methods").glob("*.yaml")):
        cfg = load(file)
        policy = {name.lower(): head.POLICY for name, head in cfg.HEADS.items() if head.LABELED_LOSS}
        about = {"name": file.stem, "category": cfg.METHOD.CATEGORY, "algorithm": cfg.ALGORITHM.NAME}
        methods.append(about | {"policy": policy, "source": cfg.METHOD.SOURCE})
    if as_json:
        print(json.dumps(methods, indent=1))
        return 0
    rows = [about | {"policy": "\n".join(about["policy"].values())} for about in methods]
    print(tabulate(rows, headers="keys"))
    print("\nconfigs/SET/NAME.yaml adds a data set's settings to a method. One line per head; the last is evaluated.")
    return 0


def _fail(code: int, message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _announce_device(run) -> None:
    import torch

    if run.cfg.GPU_ID >= 0 and not torch.cuda.is_available():
        print(f"GPU_ID is {run.cfg.GPU_ID}, but no GPU was found: running on the CPU", file=sys.stderr)


def _command(run, keys: list, args: argparse.Namespace) -> str:
    """The command for `run`: with another file of the same folder if it gives this run, else with more overrides."""
    from seval.config import load
    from seval.run import Run

    given = args.config_file
    for file in sorted(Path(given).parent.glob("*.yaml"), reverse=True) if given else ():  # reversed: dataset.yaml late
        try:
            if Run(load(file, args.overrides)).id == run.id:
                return shlex.join(["python", "main.py", "--config-file", str(file), *args.overrides])
        except ValueError:
            continue
    file = ["--config-file", given] if given else []
    keys = keys if "PREREQUISITE" in keys[::2] else ["PREREQUISITE", [], *keys]
    return shlex.join(["python", "main.py", *file, *args.overrides, *map(str, keys)])


def _describe(run, as_json: bool) -> int:
    run.check()
    chain = [{"id": each.id, "folder": str(each.folder), "state": each.state()} for each in run.chain()]
    about = {
        "id": run.id,
        "folder": str(run.folder),
        "delta": _delta(run),
        "chain": chain,
        "data": run.fingerprint,
        "splits": run.manifest(),
    }
    if as_json:
        print(json.dumps(about, indent=1))
        return 0
    print(f"run {run.id} in {run.folder}")
    print(tabulate([(key, value) for key, value in about["delta"].items()], headers=["differs from the default", ""]))
    print()
    print(tabulate([(each["id"], each["state"], each["folder"]) for each in chain], ["chain", "state", "folder"]))
    print()
    rows = [
        (name, sum(split["class_counts"]), " ".join(map(str, split["class_counts"])), split["sha256"][:12])
        for name, split in about["splits"].items()
    ]
    print(tabulate(rows, headers=["split", "images", "images per class", "sha256 of the indices"]))
    return 0


def _delta(run) -> dict:
    from seval.config import delta

    return delta(run.cfg)


def _print_line(run, line: dict, as_json: bool) -> int:
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


def _print_record(run, done: dict, as_json: bool) -> int:
    if as_json:
        print(json.dumps(done, indent=1))
        return 0
    offsets = done["results"]["test"]["ema"]
    rules = list(next(iter(offsets.values()))["top1"])
    rows = [
        (offset, *("—" if values["top1"][rule] is None else f"{values['top1'][rule]:.2%}" for rule in rules))
        for offset, values in offsets.items()
    ]
    print(f"run {run.id} done: {run.folder / 'record.json'}")
    print("top-1 accuracy on the test set of the averaged network, by test-time logit offset and selection rule:")
    print(tabulate(rows, headers=["offset", *rules], disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
