"""How a student deviates from its teacher: whether it exaggerates its confidence, where, and whether that helps.

Points are compared by the logit log(q / (1 - q)) of the probability of the *teacher's* top class k, l_t of the teacher
and l_s of the student; below the diagonal is l_s < l_t. Exaggeration is a slope above one: sure points become surer and
hard points fall below the diagonal.

**Which slope.** The headline is that of least squares of l_s on l_t: with the deciles, which are of l_t too, it says
what the student does where *this* teacher is so or so sure. Whatever of l_t the student does not take over works like
an error in the regressor: it biases this slope below one (regression to the mean), and the lowest decile upwards. A
slope above one is therefore exaggeration in spite of it; a slope below one alone shows nothing. The slope of the
inverse regression, var l_s / cov(l_s, l_t), errs in the other direction by whatever the student adds of its own. With
errors of any sizes on both sides that are uncorrelated with each other and with what both share, the slope of the
shared part lies between the two; between them is the reduced major axis, the ratio of standard deviations, which is
above one where the student's logits spread more than the teacher's.

    slope <= slope_axis <= slope_upper        exaggeration: slope > 1. Moderation: slope_upper < 1. Else undecided.

**Infinite logits** (a probability of 0 or 1) have no place in a mean: their points are left out of all statistics of
logits, and `left_out` is their share. `kl_left_out` is the share of points at which a KL divergence is infinite.

Source: Nagarajan et al., "On student-teacher deviations in distillation: does it pay to disobey?", NeurIPS 2023, arXiv
2301.12923, for the plot of logits; R. Frisch, "Statistical confluence analysis by means of complete regression
systems", 1934, for the two regressions as bounds; W. A. Fuller, "Measurement Error Models", Wiley 1987, section 1.1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.conventions import DEVIATION_GROUPS
from kdsim.measure.decomposition import columns
from kdsim.measure.floors import interval

DECILES = range(1, DEVIATION_GROUPS + 1)
_SLOPES = ("slope", "intercept", "slope_axis", "slope_upper")
_TRUTH = ("kl_change", "towards", "cosine", "kl_left_out")
NAMES = (
    *_SLOPES, "mean", "below", "below_q1", "left_out", *(f"q{number}" for number in DECILES),
    *(f"se_q{number}" for number in DECILES), *(f"teacher_q{number}" for number in DECILES), *_TRUTH,
)  # fmt: skip
"""What `deviations` finds."""
NORMALISED = 1e-4
"""Largest logarithm of a sum of probabilities."""


def top_logits(teacher: Tensor, student: Tensor) -> tuple[Tensor, Tensor]:
    """Logits of the probability of the teacher's most probable class (of equals, the first), (N,) each.

    log q_k - log sum_{j != k} q_j: 1 - q_k is summed, not subtracted, so that q_k may be 1 to rounding.

    Args:
        teacher, student: log-probabilities, (N, K).
    """
    top = teacher.argmax(-1, keepdim=True)

    def logit(log_probs: Tensor) -> Tensor:
        others = log_probs.scatter(-1, top, -torch.inf).logsumexp(-1)
        own = log_probs.gather(-1, top)[:, 0]
        return own - others  # +-inf where one of the two is -inf

    return logit(teacher), logit(student)


def deviations(teacher: Tensor, student: Tensor, p: Tensor | None = None) -> dict[str, float]:
    """How one student deviates from its teacher, over N points. A NaN where there is no number, see below.

    slope, intercept: of least squares of l_s on l_t; slope_axis, slope_upper: the other two slopes. NaN with fewer than
    three points or where a column is constant; the last two also where the correlation is not positive.
    mean: of l_s - l_t; below: share of points with l_s < l_t; below_q1: likewise among the lowest tenth of l_t.
    q1 .. q10: mean of l_s - l_t in each tenth of the points by l_t, se_q1 .. its standard error over points,
    teacher_q1 .. the mean of l_t. NaN with fewer than 20 points.
    left_out: share of points with an infinite logit, which count in none of these.

    Where p is given:
    kl_change: mean of KL(p, q_s) - KL(p, q_t) in nats; negative: the student is closer to the truth.
    kl_left_out: share of points at which one of them is infinite, which do not count in kl_change.
    towards: sum <q_s - q_t, p - q_t> / sum |p - q_t|^2 over points: 1 is the whole way to the truth, 0 a deviation
    orthogonal to it, negative away from it. A ratio of sums: the mean of ratios has no variance where q_t meets p.
    cosine: the same with both lengths divided out, in [-1, 1]. NaN where student or truth is the teacher.

    All are NaN where an entry of `student` is, as after a divergence.

    Args:
        teacher, student: log-probabilities at the same points, (N, K).
        p: Bayes class probabilities there, (N, K), if they are known.

    Raises:
        ConfigError: shapes differ, or log-probabilities are not normalised.
    """
    teacher, student = teacher.double(), student.double()
    found = dict.fromkeys(NAMES if p is not None else set(NAMES) - set(_TRUTH), math.nan)
    _check(teacher, student, p)
    if student.isnan().any():
        return {name: found[name] for name in NAMES if name in found}
    l_t, l_s = top_logits(teacher, student)
    finite = l_t.isfinite() & l_s.isfinite()
    found["left_out"] = 1 - finite.double().mean().item()
    l_t, l_s = l_t[finite], l_s[finite]
    found |= dict(zip(_SLOPES, _slopes(l_t, l_s), strict=True))
    if len(l_t):
        found["mean"] = (l_s - l_t).mean().item()
        found["below"] = (l_s < l_t).double().mean().item()
    if len(l_t) >= 2 * DEVIATION_GROUPS:
        found |= _by_quantile(l_t, l_s)
    if p is not None:
        found |= _towards(teacher, student, p.double())
    return {name: found[name] for name in NAMES if name in found}


def _check(teacher: Tensor, student: Tensor, p: Tensor | None) -> None:
    shapes = [tuple(each.shape) for each in (teacher, student, p) if each is not None]
    if len(set(shapes)) > 1 or len(shapes[0]) != 2 or shapes[0][1] < 2:
        raise ConfigError(f"shapes of teacher, student and p = {shapes} are not allowed: must be one (N, K), K >= 2")
    for name, log_probs in (("teacher", teacher), ("student", student)):
        off = log_probs.logsumexp(-1).abs().max().item()
        if off > NORMALISED or (name == "teacher" and not off <= NORMALISED):
            raise ConfigError(
                f"log-probabilities of the {name} must be normalised: the logarithm of a sum is {off:.3g}"
            )


def _slopes(l_t: Tensor, l_s: Tensor) -> tuple[float, float, float, float]:
    """slope, intercept, slope_axis, slope_upper. (n,), (n,)."""
    nothing = (math.nan,) * 4
    if len(l_t) < 3:
        return nothing
    x, y = l_t - l_t.mean(), l_s - l_s.mean()
    xx, xy, yy = ((a * b).sum().item() for a, b in ((x, x), (x, y), (y, y)))
    if min(xx, yy) <= 0:
        return nothing
    slope = xy / xx
    upward = (math.sqrt(yy / xx), yy / xy) if xy > 0 else (math.nan, math.nan)
    return slope, (l_s.mean() - slope * l_t.mean()).item(), *upward


def _by_quantile(l_t: Tensor, l_s: Tensor) -> dict[str, float]:
    """Statistics of tenths of the points; sizes differ by one at most, equals stand in their order."""
    order = l_t.argsort(stable=True)
    deviation, found = (l_s - l_t)[order], {}
    place = torch.arange(len(order)) * DEVIATION_GROUPS // len(order)
    for number in DECILES:
        own = deviation[place == number - 1]
        found[f"q{number}"] = own.mean().item()
        found[f"se_q{number}"] = own.std().item() / math.sqrt(len(own))
        found[f"teacher_q{number}"] = l_t[order][place == number - 1].mean().item()
    lowest = order[place == 0]
    return found | {"below_q1": (l_s < l_t)[lowest].double().mean().item()}


def _towards(teacher: Tensor, student: Tensor, p: Tensor) -> dict[str, float]:
    """What p says of the deviation."""
    # KL(p, q_s) - KL(p, q_t) = sum_k p_k (log q_t - log q_s): the entropy of p is in both.
    losses = [torch.where(p > 0, -p * log_probs, 0.0).sum(-1) for log_probs in (student, teacher)]  # (N,) each
    finite = losses[0].isfinite() & losses[1].isfinite()
    change = (losses[0] - losses[1])[finite]
    moved, way = student.exp() - teacher.exp(), p - teacher.exp()
    along, length, whole = ((a * b).sum().item() for a, b in ((moved, way), (moved, moved), (way, way)))
    return {
        "kl_change": change.mean().item() if len(change) else math.nan,
        "kl_left_out": 1 - finite.double().mean().item(),
        "towards": along / whole if whole > 0 else math.nan,
        "cosine": along / math.sqrt(length * whole) if length * whole > 0 else math.nan,
    }


def over_replicas(found: Sequence[Mapping[str, float]], prefix: str = "deviation_") -> dict[str, float | None]:
    """Means over replicas with 95 % t-intervals as PREFIXNAME, .._low, .._high; no interval for one replica.

    None where a replica has no number. Standard errors over points are left to the replicas: the interval over replicas
    takes their place.
    """
    row: dict[str, float | None] = {}
    for name in found[0]:
        if name.startswith("se_"):
            continue
        values = torch.tensor([each[name] for each in found], dtype=torch.float64)
        if not values.isfinite().all():
            row |= columns(prefix + name, None)
        elif len(values) == 1:
            row |= columns(prefix + name, None) | {prefix + name: values.item()}
        else:
            row |= columns(prefix + name, interval(values))
    return row
