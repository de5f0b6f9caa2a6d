"""Rules with moving priors and blank images, an image and a class at a time, written from the equations."""

from __future__ import annotations

from math import exp, log

Row = list[float]


def softmax(z: Row) -> Row:
    e = [exp(v - max(z)) for v in z]
    return [v / sum(e) for v in e]


def mean(rows: list[Row]) -> Row:
    return [sum(column) / len(rows) for column in zip(*rows, strict=True)]


def toward(old: Row, new: Row, keep: float) -> Row:
    return [keep * a + (1 - keep) * b for a, b in zip(old, new, strict=True)]


def cross(target: Row, z: Row) -> float:
    top = max(z)
    total = top + log(sum(exp(v - top) for v in z))
    return sum(-t * (v - total) for t, v in zip(target, z, strict=True))


def one_hot(row: Row) -> Row:
    return [float(c == row.index(max(row))) for c in range(len(row))]


class Debias:
    """DebiasPL: labels lose strength log p, then p moves, then the unlabeled loss gains strength log p."""

    def __init__(self, classes: int, strength: float, momentum: float) -> None:
        self.p, self.strength, self.momentum = [1 / classes] * classes, strength, momentum

    def step(self, logits: list[Row]) -> list[Row]:
        probs = [softmax([v - self.strength * log(p) for v, p in zip(z, self.p, strict=True)]) for z in logits]
        self.p = toward(self.p, mean([softmax(z) for z in logits]), self.momentum)
        return probs

    def margin(self) -> Row:
        return [self.strength * log(p) for p in self.p]


class SimPro:
    """E step: Bayes with the unlabeled prior. M step, once a period: both priors move toward the period's counts."""

    def __init__(self, counts: Row, tau: float, threshold: float, momentum: float) -> None:
        self.tau, self.threshold, self.momentum = tau, threshold, momentum
        self.unlabeled, self.all = [1 / len(counts)] * len(counts), [n / sum(counts) for n in counts]
        self.clear()

    def clear(self) -> None:
        self.kept, self.labels = [0.0] * len(self.all), [0.0] * len(self.all)

    def offset(self, prior: Row) -> Row:
        return [log(p**self.tau + 1e-12) for p in prior]

    def step(self, logits: list[Row], labels: list[int]) -> tuple[list[Row], Row]:
        offset, probs, weights = self.offset(self.unlabeled), [], []
        for z in logits:
            q = softmax([v + o for v, o in zip(z, offset, strict=True)])
            weights.append(float(max(q) >= self.threshold))
            probs.append(q)
            for c, value in enumerate(q):
                self.kept[c] += weights[-1] * value
        for y in labels:
            self.labels[y] += 1
        return probs, weights

    def period(self) -> None:
        kept, both = self.kept, [a + b for a, b in zip(self.kept, self.labels, strict=True)]
        self.unlabeled = toward(self.unlabeled, [n / (sum(kept) + 1) for n in kept], self.momentum)
        self.all = toward(self.all, [n / sum(both) for n in both], self.momentum)
        self.clear()


class FlexDA:
    """ADELLO: the target distribution goes from the estimated unlabeled prior to nearly uniform."""

    def __init__(self, counts: Row, floor: float, power: float, momentum: float, distill: float) -> None:
        self.floor, self.power, self.momentum, self.distill = floor, power, momentum, distill
        self.prior, self.q, self.T = [n / sum(counts) for n in counts], [1 / len(counts)] * len(counts), None

    def step(self, logits: list[Row], progress: float) -> None:
        if self.T is None and progress >= self.distill:
            classes = len(self.q)
            self.T = exp(sum(log(1 / classes / q) / classes for q in self.q))
        self.q = toward(self.q, mean([softmax(z) for z in logits]), self.momentum)

    def target(self, progress: float) -> Row:
        alpha = 1 - (1 - self.floor) * progress**self.power
        raised = [q**alpha for q in self.q]
        return [r / sum(raised) for r in raised]

    def labeled(self, progress: float) -> Row:
        return [log(p / t) for p, t in zip(self.prior, self.target(progress), strict=True)]

    def unlabeled(self, progress: float) -> Row:
        return [log(q / t) for q, t in zip(self.q, self.target(progress), strict=True)]

    def complement(self, weak: list[Row], strong: list[Row], threshold: float, progress: float) -> float:
        if self.T is None:
            return 0.0
        terms = []
        for z, s in zip(weak, strong, strict=True):
            q = softmax(z)
            soft = [v ** (1 / self.T) for v in q]
            student = [(v + m) / self.T for v, m in zip(s, self.unlabeled(progress), strict=True)]
            terms.append((max(q) < threshold) * cross([v / sum(soft) for v in soft], student))
        return sum(terms) / len(terms)


def cdmad(logits: list[Row], blank: Row, progress: float, start: float) -> list[Row]:
    """Soft labels less the logits of an image of nothing, from start on."""
    return [softmax([v - b * (progress >= start) for v, b in zip(z, blank, strict=True)]) for z in logits]


def sc_thresholds(counts: Row, c: float, ratio: float, share: float, scale: float, shift: float) -> Row:
    """SC-SSL: the first half by rank needs 0.95, the others 0.95 - (c - shift) share min(ratio / scale, 1)."""
    ranks = sorted(range(len(counts)), key=lambda k: -counts[k])
    lower = 0.95 - (c - shift) * share * min(ratio / scale, 1)
    return [0.95 if ranks.index(k) < len(counts) // 2 else lower for k in range(len(counts))]


def tras(balanced: list[Row], teacher: list[Row], prior: Row, threshold: float) -> tuple[list[Row], Row]:
    """Targets from the teacher head's logits of the strong view; weights and classes from this head's weak ones."""
    inverse = softmax([-log(p) for p in prior])
    T = [2 * v + 2 for v in inverse]
    targets, weights = [], []
    for z, t in zip(balanced, teacher, strict=True):
        q = softmax(z)
        weights.append(float(max(q) >= threshold))
        strength = T[q.index(max(q))]
        targets.append(softmax([(v - strength * log(p)) / 2 for v, p in zip(t, prior, strict=True)]))
    return targets, weights
