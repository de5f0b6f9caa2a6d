"""Time SEVAL's fits: those of one evaluation with SciPy's Nelder-Mead and with this project's, which has the same
iterates; then for 100 classes the fit of the offsets pi with a class loop as in the published code, vectorized, and
exact. Run as `python benchmarks/fits.py [--full]`, with OMP_NUM_THREADS=2 for two threads. With one thread, CPU time is
read, since other programs may share the machine."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported: one thread on every side

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

sys.path.insert(0, str(Path(__file__).parents[1]))

from seval.policy import fits
from seval.policy.fits import _nelder_mead_offsets, fit_offsets, fit_thresholds
from seval.policy.simplex import nelder_mead, nelder_mead_scalar

CLASSES, SAMPLES = 100, 2000
EVENTS = ((10, 600), (100, 1000), (100, 2000), (100, 3000), (127, 1270), (200, 2400))  # classes, held-out samples
LOW, HIGH = 1e-3, 3.0
Objective = Callable[[np.ndarray], float]

ASSUMPTIONS = """\
Assumptions about the class loop: NumPy in float64; log pi, softmax and class masks are computed in each evaluation.
"rows" computes the log-softmax for the rows of one class at a time. "gather" computes it once for all rows, then loops
over the classes for masks and means. The published loop may be faster or slower than these, and may use tensors.
"no loop" is both without the loop: one log-softmax, one gather, one weighted sum."""


def problem(classes: int = CLASSES, samples: int = SAMPLES) -> tuple[np.ndarray, np.ndarray]:
    """Logits (N, C) of a classifier biased towards the frequent classes, and long-tailed labels (N,)."""
    rng = np.random.default_rng(0)
    frequency = 20.0 ** -np.linspace(0, 1, classes)
    labels = rng.choice(classes, samples, p=frequency / frequency.sum())
    logits = 2 * rng.normal(size=(samples, classes)) + 0.7 * np.log(frequency)
    logits[np.arange(samples), labels] += 3
    return logits, labels


def scipy_search(loss: Objective, start: np.ndarray, low: float, high: float, tolerance: float, frozen=0, **_):
    """SciPy's search in place of `nelder_mead`."""
    box = [(1.0, 1.0)] * frozen + [(low, high)] * start.size
    start = np.append(np.ones(frozen), start)
    options = {"method": "Nelder-Mead", "bounds": box, "tol": tolerance}
    return minimize(lambda x: loss(x[frozen:]), start, **options).x[frozen:]


def scipy_search_scalar(loss: Callable[[float], float], start: float, low: float, high: float, tolerance: float):
    return scipy_search(lambda x: loss(x[0]), np.array([start]), low, high, tolerance)[0]


def events(rounds: int, sizes: list[int]) -> bool:
    """Time both fits of one evaluation with either search, alternately. Returns whether all results are equal."""
    print(f"Seconds per evaluation of a run, SciPy's search -> this one; {os.environ['OMP_NUM_THREADS']} thread(s):")
    equal = True
    for classes, samples in EVENTS:
        if classes not in sizes:
            continue
        logits, labels = problem(classes, samples)

        def offsets(search: Callable, z: np.ndarray = logits, y: np.ndarray = labels) -> np.ndarray:
            fits.nelder_mead = search
            return fit_offsets(z, y)

        refined = logits - np.log(offsets(nelder_mead))

        def thresholds(search: Callable, z: np.ndarray = refined, y: np.ndarray = labels) -> np.ndarray:
            fits.nelder_mead_scalar = nelder_mead_scalar if search is nelder_mead else scipy_search_scalar
            return fit_thresholds(z, y, target=0.75).tau

        for name, fit in (("pi", offsets), ("tau", thresholds)):
            label = f"{name}, {classes} classes, {samples} samples"
            sides = (lambda f=fit: f(scipy_search)), (lambda f=fit: f(nelder_mead))
            equal &= np.array_equal(*compare(label, *sides, rounds, 1, "s")[1])
    return bool(equal)


def rows(logits: np.ndarray, labels: np.ndarray) -> Objective:
    def objective(x: np.ndarray) -> float:
        alpha, pi = x[:CLASSES], x[CLASSES:]
        score = np.full(CLASSES, -2.0)
        for c in range(CLASSES):
            mask = labels == c
            if mask.any():
                score[c] = log_softmax(alpha * (logits[mask] - np.log(pi)), axis=1)[:, c].mean() / CLASSES
        return -score.mean()

    return objective


def gather(logits: np.ndarray, labels: np.ndarray) -> Objective:
    def objective(x: np.ndarray) -> float:
        alpha, pi = x[:CLASSES], x[CLASSES:]
        log_p = log_softmax(alpha * (logits - np.log(pi)), axis=1)
        score = np.full(CLASSES, -2.0)
        for c in range(CLASSES):
            mask = labels == c
            if mask.any():
                score[c] = log_p[mask, c].mean() / CLASSES
        return -score.mean()

    return objective


def no_loop(logits: np.ndarray, labels: np.ndarray) -> Objective:
    count = np.bincount(labels, minlength=CLASSES)
    weight = 1 / count[labels] / CLASSES**2
    every = np.arange(len(labels))

    def objective(x: np.ndarray) -> float:
        refined = x[:CLASSES] * (logits - np.log(x[CLASSES:]))
        refined -= refined.max(axis=1, keepdims=True)
        return weight @ (np.log(np.exp(refined).sum(axis=1)) - refined[every, labels]) + 2 * np.mean(count == 0)

    return objective


def search(objective: Objective, **options: int) -> np.ndarray:
    box = [(1.0, 1.0)] * CLASSES + [(LOW, HIGH)] * CLASSES
    start = np.ones(2 * CLASSES)
    return minimize(objective, start, method="Nelder-Mead", bounds=box, tol=1e-7, options=options).x[CLASSES:]


def timed(run: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    clock = time.process_time if os.environ["OMP_NUM_THREADS"] == "1" else time.perf_counter
    start = clock()
    pi = run()
    return clock() - start, pi


def compare(name: str, slow: Callable, fast: Callable, rounds: int, unit: float, label: str) -> tuple[float, list]:
    """Run slow and fast alternately. Returns the median of their paired time ratios, and the two results pi."""
    pairs = [(timed(slow), timed(fast)) for _ in range(rounds)]
    times = np.array([[a[0], b[0]] for a, b in pairs])
    ratio = float(np.median(times[:, 0] / times[:, 1]))
    before, after = np.median(times, axis=0) / unit
    print(f"  {name:38s} {before:8.4g} -> {after:<8.4g} {label:17s} {ratio:7.1f}x")
    return ratio, [pi for _, pi in pairs[-1]]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--full", action="store_true", help="also run one class loop to its end, which takes minutes")
    parser.add_argument("--evaluations", type=int, default=300, help="limit for both sides, with class loops")
    parser.add_argument("--rounds", type=int, default=3, help="pairs per comparison")
    parser.add_argument("--sizes", type=int, nargs="*", default=[10, 100, 127, 200], help="classes, first comparison")
    parser.add_argument("--only-events", action="store_true", help="only the first comparison")
    args = parser.parse_args()
    equal = events(args.rounds, args.sizes)
    if args.only_events:
        print("yes" if equal else "NO ", "all results are equal")
        return 0 if equal else 1
    logits, labels = problem()
    print(f"{CLASSES} classes, {SAMPLES} held-out samples, medians over {args.rounds} interleaved pairs.")
    print(ASSUMPTIONS + "\n")

    def vectorized(limit: int | None = None) -> np.ndarray:
        return _nelder_mead_offsets(logits, labels, np.arange(CLASSES), LOW, HIGH, limit)

    results = []
    print(f"Both sides stopped after {args.evaluations} evaluations (a complete search needs up to 40000):")
    for loop in (rows, gather, no_loop):
        objective = loop(logits, labels)
        name = f"{loop.__name__.replace('_', ' ')} -> vectorized Nelder-Mead"
        slow, fast = lambda f=objective: search(f, maxfev=args.evaluations), lambda: vectorized(args.evaluations)
        results.append(compare(name, slow, fast, args.rounds, args.evaluations / 1e3, "ms per evaluation"))
    print("Complete fits:")
    if args.full:
        objective = rows(logits, labels)
        results.append(compare("rows -> vectorized Nelder-Mead", lambda: search(objective), vectorized, 1, 1, "s"))

    def exact() -> np.ndarray:
        return fit_offsets(logits, labels, solver="exact")

    exact_ratio, found = compare("vectorized Nelder-Mead -> exact", vectorized, exact, args.rounds, 1, "s")
    objective = gather(logits, labels)
    losses = [CLASSES * objective(np.append(np.ones(CLASSES), pi)) for pi in found]
    print(f"  class-averaged cross-entropy: Nelder-Mead {losses[0]:.8f}, exact {losses[1]:.8f}")
    errors = np.subtract(*[np.log(pi) - np.log(pi).mean() for pi in found])
    print(f"  log pi, centered, of Nelder-Mead is up to {np.abs(errors).max():.3f} away from the exact one\n")

    distance = max(np.abs(np.subtract(*pis)).max() for _, pis in results)
    checks = {
        "the results of both searches are equal to the bit": equal,
        "vectorized Nelder-Mead is at least 20x faster than both class loops": min(r for r, _ in results[:2]) >= 20,
        f"... with the same result to 1e-6 (largest difference {distance:.1e})": distance <= 1e-6,
        "exact is at least 20x faster than vectorized Nelder-Mead": exact_ratio >= 20,
        "... and not worse": losses[1] <= losses[0],
    }
    for claim, holds in checks.items():
        print("yes" if holds else "NO ", claim)
    return 0 if all(checks.values()) else 1


if __name__ == "__main__":
    raise SystemExit(main())
