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
KEY VALUE pairs override the configuration file; seval/defaults.py has every key with its meaning. Examples:

  python main.py --config-file configs/tiny/fixmatch.yaml SEED 1
  python main.py --config-file configs/cifar10/fixmatch_seval_load.yaml --with-prerequisites \\
      DATASET.CIFAR10.NUM_LABELED_HEAD 500 DATASET.CIFAR10.NUM_UNLABELED_HEAD 4000 SEED 79 GPU_ID 0
  python main.py --config-file configs/cifar10/fixmatch.yaml --dry-run
  python main.py --list-methods

A run that is done prints its record, one that was interrupted goes on from its checkpoint.
SIGTERM, SIGUSR2 and Ctrl-C stop it after the step at hand, with a checkpoint; a second Ctrl-C at once, without one.
Exit code: 0 done, 2 bad input or a file that cannot be written, 3 training failed, 4 another process trains this run,
75 stopped by SIGTERM or SIGUSR2 with a checkpoint, and 130 by Ctrl-C: the same command goes on from there.
"""


def main(argv: list[str] | None = None) -> int:
    """Parse, run, report; errors are one line on stderr."""
    args = _parse(argv)
    from seval.config import load  # the packages below take seconds to import; --help should not
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
                f"nothing to resume: run {run.id} has no checkpoint in {run.folder}; leave --resume out to start it"
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
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        return _fail(2, f"{error}; mend that, and the same command goes on from what is there")
    except KeyboardInterrupt:
        return _fail(130, "interrupted; the same command goes on from the last checkpoint")


def _parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config-file", metavar="FILE", help="YAML laid over the defaults and its _BASE_ files")
    parser.add_argument("--eval-only", action="store_true", help="measure the checkpoint once more instead of training")
    parser.add_argument(
        "--resume",
        action="store_true",
        help="go on from the checkpoint, and fail if there is none "
        "(without it a missing checkpoint means a fresh start)",
    )
    parser.add_argument("--with-prerequisites", action="store_true", help="first execute the runs it stands on")
    parser.add_argument("--dry-run", action="store_true", help="print id, folder, splits and chain, and train nothing")
    parser.add_argument("--list-methods", action="store_true", help="print every method with its policy and source")
    parser.add_argument("--json", action="store_true", help="print the list, --dry-run or the record as JSON")
    parser.add_argument("overrides", nargs=argparse.REMAINDER, metavar="KEY VALUE", help="such as SEED 79 GPU_ID 0")
    args = parser.parse_args(argv)
    flags = {"--eval-only", "--resume", "--with-prerequisites", "--dry-run", "--list-methods", "--json"}
    for flag in flags & set(args.overrides):  # options are welcome behind the pairs too
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
    print("\nconfigs/SET/NAME.yaml lays a set's settings over a method. A line a head, the last one evaluated.")
    return 0


def _fail(code: int, message: str) -> int:
    print(f"error: {message}", file=sys.stderr)
    return code


def _announce_device(run) -> None:
    import torch

    if run.cfg.GPU_ID >= 0 and not torch.cuda.is_available():
        print(f"GPU_ID is {run.cfg.GPU_ID}, but there is no GPU here: running on the CPU", file=sys.stderr)


def _command(run, keys: list, args: argparse.Namespace) -> str:
    """The command that executes `run`: a file beside the given one where one fits, else more overrides."""
    from seval.config import load
    from seval.run import Run

    given = args.config_file
    for file in sorted(Path(given).parent.glob("*.yaml"), reverse=True) if given else ():  # dataset.yaml is no method
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
    print(tabulate(rows, headers=["split", "images", "of each class", "sha256 of its indices"]))
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
    print("top-1 on the test set, averaged network; by the offset taken off its logits and the selection rule:")
    print(tabulate(rows, headers=["offset", *rules], disable_numparse=True))
    return 0


if __name__ == "__main__":
    sys.exit(main())
