"""Nelder-Mead with the iterates of SciPy's, bit for bit, without its costs: sorting, copying and waiting for memory.

SciPy is asked for nothing, so its version changes nothing. What is left out cannot change an iterate: variables that
their bounds freeze, the sort of vertices that are sorted but for one, the size of the simplex where its values differ.
"""

from bisect import bisect_left
from collections.abc import Callable

import numpy as np

from seval.policy.objective import Floats

AHEAD = 16  # reflections that are evaluated together
MARGIN = 1e-13  # values nearer than this are compared only if both were evaluated one by one


def nelder_mead(
    loss: Callable[[Floats], float],
    start: Floats,
    low: float,
    high: float,
    *,
    tolerance: float,
    frozen: int = 0,
    limit: int | None = None,
    losses: Callable[[Floats], Floats] | None = None,
) -> Floats:
    """Return the x (G,) at which SciPy's bounded Nelder-Mead search stops.

    Args:
        loss: the objective of x (G,). It must not keep or change x.
        start: (G,), within the bounds.
        low, high: bounds of every variable, high > 0.
        tolerance: SciPy's `tol`: of the variables and of the objective.
        frozen: number of further variables, ahead of these, whose two bounds are equal and not 0. Each adds a vertex
            at the start, which slows the search down; the objective does not depend on them.
        limit: most evaluations. None: 200 for each variable, as in SciPy.
        losses: the objective of many points (n, G), by rounding at most MARGIN / 2 away from `loss`. With 16 or more
            variables, reflections are then evaluated together, before their turn. Where rounding could decide a
            comparison, `loss` does.
    """
    simplex = _Simplex(loss, start, low, high, frozen, losses)
    vertices = len(simplex.values)
    left = (200 * (vertices - 1) if limit is None else limit) - vertices
    while left > 0 and not simplex.converged(tolerance):
        left -= simplex.step(left)
    return simplex.rows[0].copy()


def nelder_mead_scalar(
    loss: Callable[[float], float], start: float, low: float, high: float, *, tolerance: float
) -> float:
    """The same for one variable, in plain numbers: an array of one number costs as much as one of a hundred."""

    def clipped(x: float) -> float:
        return min(max(x, low), high)

    swaps = bool(np.argsort(np.zeros(2))[0])  # of equal values; depends on the processor
    x, y = start, clipped(2 * high - 1.05 * start if 1.05 * start > high else 1.05 * start)
    at_x, at_y, left = loss(x), loss(y), 198
    if at_y < at_x:  # SciPy sorts twice here, which leaves equal values where they were
        x, at_x, y, at_y = y, at_y, x, at_x
    while left > 0 and not (at_y - at_x <= tolerance and abs(y - x) <= tolerance):
        new, left = clipped(2 * x - y), left - 1
        at_new = loss(new)
        if left and at_new < at_x:
            other, left = clipped(3 * x - 2 * y), left - 1
            at_other = loss(other)
            y, at_y = (other, at_other) if at_other < at_new else (new, at_new)
        elif left:
            outside = at_new < at_y
            other, left = clipped(1.5 * x - 0.5 * y if outside else 0.5 * x + 0.5 * y), left - 1
            at_other = loss(other)
            if at_other <= at_new if outside else at_other < at_y:
                y, at_y = other, at_other
            else:
                y = clipped(x + 0.5 * (y - x))
                if left:
                    at_y, left = loss(y), left - 1
        if at_y < at_x or swaps and at_y == at_x:
            x, at_x, y, at_y = y, at_y, x, at_x
    return x


class _Simplex:
    """Vertices `rows` (N + 1, G), best first, with their `values`. Rows are a window that slides down a longer buffer:
    a new vertex that replaces the worst moves only the better ones."""

    def __init__(
        self,
        loss: Callable[[Floats], float],
        start: Floats,
        low: float,
        high: float,
        frozen: int,
        losses: Callable[[Floats], Floats] | None,
    ) -> None:
        self.loss, self.losses, self.low, self.high = loss, losses, low, high
        size = start.size
        self.lows, self.highs = np.full(size, low), np.full(size, high)  # NumPy takes arrays faster than numbers
        self.last = frozen + size  # index of the worst vertex = number of variables
        self.buffer = np.empty((4 * (self.last + 1), size))
        self.flat = self.buffer.reshape(-1)
        self.slide(3 * (self.last + 1))
        self.rows[:] = start
        moved = 1.05 * start
        moved = np.where(moved > high, 2 * high - moved, moved).clip(low, high)
        np.fill_diagonal(self.rows[frozen + 1 :], moved)
        self.margin = 0.0  # MARGIN while `values` has any that were evaluated together
        self.ahead = _reflections(min(AHEAD, size // 4), self.last) if losses else np.empty((0, 1))
        self.queue: list[float] = []  # values of the next reflections, the next one last
        self.wait = 0  # iterations before looking ahead again
        self.values = [loss(row) for row in self.rows]
        for _ in range(2):  # SciPy's sort is not stable, and is done twice
            self.sort()

    def slide(self, first: int) -> None:
        self.first = first
        self.rows = self.buffer[first : first + self.last + 1]

    def converged(self, tolerance: float) -> bool:
        if self.values[-1] - self.values[0] > tolerance + self.margin:
            return False
        self.settle()
        near = self.values[-1] - self.values[0] <= tolerance
        return near and bool(np.abs(self.rows[1:] - self.rows[0]).max() <= tolerance)

    def step(self, left: int) -> int:
        """One iteration with at most `left` evaluations. Returns how many it made."""
        self.center = np.add.reduce(self.rows[:-1], axis=0) / self.last
        x, values, used = self.point(1.0), self.values, 1
        value = self.foreseen()
        if value is None:
            value = self.value(x)
        if not values[0] <= value < values[-2]:
            if left < 2:  # SciPy sorts again before it stops
                self.sort()
                return 1
            at = 2.0 if value < values[0] else 0.5 if value < values[-1] else -0.5
            other = self.point(at)
            its, used = self.value(other), 2
            if at < 2 and not (its <= value if at > 0 else its < values[-1]):
                return used + self.shrink(left - used)
            if at < 2 or its < value:
                x, value = other, its
        self.replace_worst(x, value)
        return used

    def point(self, at: float) -> Floats:
        """The point beyond the center of the others as seen from the worst vertex; at = 1 is its reflection."""
        x = (1 + at) * self.center
        x -= at * self.rows[-1]
        np.maximum(x, self.lows, out=x)
        return np.minimum(x, self.highs, out=x)

    def value(self, x: Floats) -> float:
        value = self.loss(x)
        if self.margin and self.doubtful(value, self.margin):
            self.settle()
        return value

    def replace_worst(self, x: Floats, value: float) -> None:
        rank = bisect_left(self.values, value)
        if self.tied or self.values[rank] == value:
            self.rows[-1], self.values[-1] = x, value
            self.sort()
            return
        if self.first == 0:
            self.buffer[-self.last - 1 :] = self.rows
            self.slide(3 * (self.last + 1))
        size, first = x.size, self.first
        self.flat[(first - 1) * size : (first - 1 + rank) * size] = self.flat[first * size : (first + rank) * size]
        self.slide(first - 1)
        self.rows[rank] = x
        self.values.insert(rank, value)
        self.values.pop()
        del self.queue[: max(0, len(self.queue) - self.last + rank)]  # these come after the new vertex

    def sort(self) -> None:
        """Sort all vertices in the order of SciPy, whose sort is not stable."""
        order = np.argsort(self.values)
        self.rows[:] = self.rows[order]
        self.values[:] = [self.values[i] for i in order]
        equal = np.flatnonzero(np.diff(self.values) == 0)
        self.tied = bool((self.rows[equal] != self.rows[equal + 1]).any())  # then each sort may reorder them
        self.queue.clear()

    def shrink(self, left: int) -> int:
        """Move all vertices halfway to the best. Returns how many of `left` evaluations it made."""
        self.settle()
        for i in range(1, self.last + 1):
            self.rows[i] = (self.rows[0] + 0.5 * (self.rows[i] - self.rows[0])).clip(self.low, self.high)
            if i > left:
                break
            self.values[i] = self.loss(self.rows[i])
        self.sort()
        return min(left, self.last)

    def foreseen(self) -> float | None:
        """The value of the reflection if it was evaluated together with others and any other would decide the same."""
        if not self.queue and len(self.ahead) and not self.tied:
            self.look_ahead()
        if self.queue:
            value = self.queue.pop()
            if self.values[0] <= value < self.values[-2] and not self.doubtful(value, MARGIN):
                self.margin = MARGIN
                return value
            self.queue.clear()
        return None

    def look_ahead(self) -> None:
        """Evaluate the next reflections, as they are if each is better than the vertices that come after it."""
        assert self.losses is not None  # otherwise nothing is ahead
        if self.wait:
            self.wait -= 1
            return
        count = len(self.ahead)
        points = self.ahead @ np.vstack([self.center, self.rows[: -count - 1 : -1]])
        inside = ((points >= self.low) & (points <= self.high)).all(axis=1)
        count = count if inside.all() else int(inside.argmin())
        if count > 2:
            self.queue = self.losses(points[:count])[::-1].tolist()
        else:
            self.wait = len(self.ahead)

    def doubtful(self, value: float, margin: float) -> bool:
        """Whether an error of less than `margin` could change the rank of this value."""
        rank = bisect_left(self.values, value)
        below, above = self.values[max(rank - 1, 0)], self.values[min(rank, self.last)]
        return abs(value - below) < margin or abs(value - above) < margin

    def settle(self) -> None:
        """Compute all values one by one, from now on."""
        if self.margin:
            self.values[:] = [self.loss(row) for row in self.rows]
        self.margin, self.ahead = 0.0, self.ahead[:0]
        self.queue.clear()


def _reflections(count: int, last: int) -> Floats:
    """Weights (count, 1 + count) of the center and the worst vertices, worst first, in the next reflections.

    A reflection is 2 center - worst. It joins the vertices behind the next center, and the next worst leaves them.
    """
    total, *worst = np.diag([last] + [1.0] * count)
    weights = np.empty((count, 1 + count))
    for i in range(count):
        total = total - worst[i] if i else total
        weights[i] = 2 / last * total - worst[i]
        total = total + weights[i]
    return weights
