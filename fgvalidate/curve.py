"""A curve that fits on a page: the steps and losses of a training log come in, few points go out."""

import math
from array import array
from itertools import pairwise

MAX_POINTS = 400
_NUM_BUCKETS = (MAX_POINTS - 2) // 3


def thin_curve(steps: "array[int]", losses: "array[float]") -> list[list[float]]:
    """Picks the points that a reader needs to see: the first, the last, and what stands out between them.

    A long curve is cut into buckets of equal length, and of each the lowest and the highest finite loss and the first
    that is not finite are kept, so that no spike is lost.

    Args:
        steps: Global steps of the training records; negative where a record has none, which is then left out.
        losses: Their losses.

    Returns:
        At most MAX_POINTS of [global step, loss], in the order of the records.
    """
    if min(steps, default=0) < 0:
        placed = [index for index, step in enumerate(steps) if step >= 0]
        steps = array("q", [steps[index] for index in placed])
        losses = array("d", [losses[index] for index in placed])
    picked = _pick(losses) if len(losses) > MAX_POINTS else range(len(losses))
    return [[steps[index], losses[index]] for index in picked]


def _pick(losses: "array[float]") -> list[int]:
    size = len(losses)
    edges = [size * number // _NUM_BUCKETS for number in range(_NUM_BUCKETS + 1)]
    buckets = [_find_standing_out(losses, start, stop) for start, stop in pairwise(edges)]
    return sorted({0, size - 1}.union(*buckets))


def _find_standing_out(losses: "array[float]", start: int, stop: int) -> set[int]:
    bucket = losses[start:stop]
    if math.isfinite(sum(bucket)):
        # The usual case, without a Python loop over a million records.
        return {start + bucket.index(min(bucket)), start + bucket.index(max(bucket))}
    finite = [index for index in range(start, stop) if math.isfinite(losses[index])]
    picked = {pick(finite, key=losses.__getitem__) for pick in (min, max) if finite}
    return picked | set([index for index in range(start, stop) if not math.isfinite(losses[index])][:1])
