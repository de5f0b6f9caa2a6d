"""The options of the command line that use a run that is done. Imports nothing slow."""

import argparse

from seval.places import spelled

_GROUP = """\
For a run that is done, given by its configuration or by --run. Write KEY VALUE pairs before --predict.

  python main.py --config-file configs/tiny/fixmatch.yaml SEED 1 --predict photos/ more/cat.png --top 3
  python main.py --run 3f9a --predict @list.txt --offset none --out list.csv
  python main.py --run 3f9a --export model.pt2
"""


def add_uses(parser: argparse.ArgumentParser) -> None:
    """Add --run, --predict and --export, and what belongs to them."""
    group = parser.add_argument_group("prediction and export", spelled(_GROUP))
    add = group.add_argument
    add("--run", metavar="ID", help="a run in OUTPUT_DIR instead of a configuration: its id, or the beginning of it")
    add(
        "--predict",
        metavar="PATH",
        nargs="+",
        action="extend",
        help="classify image files: files, folders with all that is in them, or @FILE with a path in each line",
    )
    add("--export", metavar="FILE", help="write the network as FILE.pt2 of torch.export, and a model card FILE.md")
    add(
        "--offset",
        metavar="NAME",
        help="what is taken off the logits: none, logit_adjusted or, if the run learned it, seval; the default is "
        "seval if the run learned it, else none",
    )
    add("--top", metavar="K", help="how many classes each row of predictions names (default: 1)")
    add("--out", metavar="FILE", help="the table of predictions (default: predictions.csv); it replaces an older one")


def check_uses(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """End the program where the options contradict each other."""
    if args.run and args.config_file:
        parser.error("--run takes the settings of that run; give it or a --config-file, not both")
    for name in ("top", "out"):
        if getattr(args, name) is not None and not args.predict:
            parser.error(f"--{name} is for --predict PATH")
    if args.offset is not None and not (args.predict or args.export):
        parser.error("--offset is for --predict PATH and --export FILE")
    for name in ("eval_only", "resume", "again", "with_prerequisites", "dry_run"):
        if getattr(args, name) and (args.predict or args.export):
            used = "--predict" if args.predict else "--export"
            parser.error(f"{used} uses a run that is done; it does not go with --{name.replace('_', '-')}")
