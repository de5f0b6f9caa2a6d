"""Images with the same pixels: what is reported and what is refused; and how test images are drawn."""

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations

from seval.data.sources.own import PARTS, Item, Note, Wishes
from seval.errors import DataError
from seval.text import short

SEED = 0  # of the draw of test images
_REFUSED = ("train and valid", "train and test", "valid and test")


def with_test(items: Sequence[Item], digests: Sequence[bytes], wishes: Wishes, note: Note) -> Sequence[Item]:
    """The items, with some as test images where the user wants them drawn. Raises `DataError` if there are none."""
    given = any(item.part == "test" for item in items)
    if given and wishes.test_portion:
        raise DataError("there are test images already; --test-portion is for sets without a test part")
    if not given and not wishes.test_portion:
        raise DataError("there are no test images: give a test part, or draw one with --test-portion 0.2")
    copies: dict[bytes, list[Item]] = defaultdict(list)
    for digest, item in zip(digests, items, strict=True):
        copies[digest].append(item)
    _report({digest: same for digest, same in copies.items() if len(same) > 1}, wishes.allow_duplicates, note)
    return items if given else _drawn(items, copies, wishes.test_portion)


def _report(copies: dict[bytes, list[Item]], allowed: bool, note: Note) -> None:
    """A line for each kind of duplicates: how many images have some, and two of them."""
    found: dict[str, list[tuple[Item, Item]]] = defaultdict(list)
    for _, same in sorted(copies.items()):
        by_part = {part: [item for item in same if item.part == part] for part in PARTS}
        for part, inside in by_part.items():
            if len(inside) > 1:
                found[f"twice in {part}"].append((inside[0], inside[1]))
        for one, other in combinations([part for part in PARTS if by_part[part]], 2):
            found[f"in {one} and {other}"].append((by_part[one][0], by_part[other][0]))
        labeled = [item for item in same if item.label]
        if other := next((item for item in labeled if item.label != labeled[0].label), None):
            found["with two labels"].append((labeled[0], other))
    for kind, pairs in found.items():
        lines = f"{len(pairs)} images are {kind}, such as {short(pairs[0][0].where)} and {short(pairs[0][1].where)}"
        if kind.removeprefix("in ") in _REFUSED and not allowed:
            raise DataError(f"{lines}: remove one of each, or keep them with --allow-duplicates")
        note(f"note: {lines}")


def _drawn(items: Sequence[Item], copies: dict[bytes, list[Item]], portion: float) -> list[Item]:
    """The items with that portion of each class as test images, at least one, while at least one label is left.

    Copies stay together, and an image that also is elsewhere stays where it is. The draw is a hash of the seed and the
    content, so that it depends neither on the form nor on the other images.
    """
    of_class: dict[str, list[bytes]] = defaultdict(list)
    counts: dict[str, int] = defaultdict(int)
    for digest, same in copies.items():
        for label in {item.label for item in same if item.part == "train"}:
            counts[label] += 1
        if same[0].part == "train" and len({item[:2] for item in same}) == 1:
            of_class[same[0].label].append(digest)
    chosen: set[bytes] = set()
    for label, digests in of_class.items():
        count = min(max(1, round(portion * counts[label])), counts[label] - 1)
        digests.sort(key=lambda digest: hashlib.sha256(b"%d %s" % (SEED, digest)).digest())
        chosen.update(digests[:count])
    test = {item for digest in chosen for item in copies[digest]}
    if not test:
        raise DataError("no class has two different images, so that no test images can be drawn; give a test part")
    return [item._replace(part="test") if item in test else item for item in items]
