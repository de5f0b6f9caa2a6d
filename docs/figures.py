"""Draw docs/figures/curriculum.svg: what SEVAL learned in one run, pi and tau of each class over its evaluations."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # this checkout, also without an installation

from seval.config import load
from seval.errors import SevalError
from seval.record import load_artifacts
from seval.run import Run

PICTURE = Path(__file__).resolve().with_name("figures") / "curriculum.svg"
EXAMPLE = """\
The figure in the repository is that of `make evidence`. Of a run of your own:

  python main.py --config-file configs/tiny/fixmatch_seval_estim.yaml SEED 0
  python docs/figures.py runs/ID --out curriculum.svg
"""
TITLES = {"pi": "offset π: below 1 favors the class", "tau": "threshold τ: confidence needed to be used"}


def learned(folder: Path) -> tuple[Run, dict[str, np.ndarray]]:
    """The run in a folder, and the arrays that its evaluated head learned. Raises `SevalError`."""
    run = Run(load(folder / "config.yaml"))
    return run, list(load_artifacts(folder / "artifacts.h5").values())[-1]


def spread(heights: np.ndarray, gap: float) -> np.ndarray:
    """Heights (N,) of labels in [0, 1], moved as little as it takes to keep them `gap` apart and above 0."""
    order, placed = np.argsort(heights, kind="stable"), np.array(heights, float)
    for _ in range(300):
        placed = placed.clip(0.0)
        for low, high in zip(order[:-1], order[1:], strict=True):
            push = max(0.0, gap - (placed[high] - placed[low])) / 2
            placed[low], placed[high] = placed[low] - push, placed[high] + push
    return placed


def lines(smoothed: np.ndarray, names: Sequence[str]) -> list[tuple[int, str, np.ndarray]]:
    """Of each curve: its most frequent class, the names of all its classes, and its values (L,).

    smoothed (L, C). Neighboring classes with equal values, which a group of tau is, share one curve.
    """
    found: list[tuple[int, str, np.ndarray]] = []
    for c, name in enumerate(names):
        if found and np.array_equal(found[-1][2], smoothed[:, c]):
            found[-1] = (found[-1][0], f"{found[-1][1]}, {name}", found[-1][2])
        else:
            found.append((c, name, smoothed[:, c]))
    return found


def panel(axes: Any, steps: np.ndarray, start: float, smoothed: np.ndarray, names: Sequence[str]) -> None:
    """One curve for each class from `start`, dark where the class is frequent and light where it is rare."""
    import matplotlib

    colors = matplotlib.colormaps["viridis"](np.linspace(0, 0.84, len(names)))
    curves = lines(smoothed, names)
    for c, _, values in curves:
        axes.plot([0, *steps], [start, *values], color=colors[c], lw=1.8, solid_capstyle="round")
    in_axes = (axes.transData + axes.transAxes.inverted()).transform  # what the limits and the scale make of a point
    ends = np.array([in_axes((steps[-1], values[-1]))[1] for *_, values in curves])
    for (c, name, values), height in zip(curves, spread(ends, 0.068), strict=True):
        axes.annotate(
            name,
            xy=(steps[-1], values[-1]),
            xytext=(1.07, height),
            textcoords="axes fraction",
            color=colors[c],
            fontsize=9,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": colors[c], "lw": 0.8, "shrinkA": 1, "shrinkB": 1},
        )
    axes.set_xlabel("training step")
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", color="0.9", lw=0.8)


def plotting() -> Any:
    """Matplotlib's pyplot, set to write the same file every time."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams |= {"svg.hashsalt": "seval", "font.size": 10, "axes.titlesize": 11}
    from matplotlib import pyplot

    return pyplot


def draw(folder: Path, out: Path) -> None:
    """Write the figure as SVG. Raises `SevalError` where the run learned no curriculum; needs matplotlib."""
    pyplot = plotting()
    run, arrays = learned(folder)
    if missing := {"pi_smoothed", "tau_smoothed"} - arrays.keys():
        raise SevalError(f"{folder / 'artifacts.h5'} has no {', '.join(sorted(missing))}; give a run of SEVAL")
    names, every = run.image_set.class_names, run.cfg.PERIODS.EVAL
    figure, axes = pyplot.subplots(1, 2, figsize=(10.5, 4.0))
    low = min(0.1, arrays["pi_smoothed"].min())
    axes[0].set(yscale="log", ylim=(low, 4), yticks=[0.1, 0.2, 0.5, 1, 2, 4], yticklabels=["0.1", "0.2", "0.5", *"124"])
    axes[0].minorticks_off()
    axes[1].set_ylim(0, 1)
    for ax, (name, start) in zip(axes, (("pi", 1.0), ("tau", 0.95)), strict=True):
        smoothed = arrays[f"{name}_smoothed"]
        steps = every * np.arange(1, len(smoothed) + 1)
        ax.set_xlim(0, steps[-1])
        panel(ax, steps, start, smoothed, names)
        ax.set_title(TITLES[name], loc="left")
    figure.text(0.06, 0.015, "dark: frequent classes   light: rare classes", fontsize=9, color="0.35")
    figure.subplots_adjust(left=0.05, right=0.82, top=0.91, bottom=0.17, wspace=0.55)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, format=out.suffix[1:] or "svg", metadata={"Date": None} if out.suffix == ".svg" else None)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> int:
    """0, or 2 and one line on standard error."""
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path, metavar="FOLDER", help="folder of a finished run of SEVAL, such as runs/ID")
    parser.add_argument("--out", type=Path, default=PICTURE, help="file to write")
    args = parser.parse_args(argv)
    try:
        draw(args.run, args.out)
    except (ValueError, OSError, SevalError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(args.out)
    return 0


if __name__ == "__main__":
    sys.exit(main())
