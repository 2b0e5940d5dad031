"""What noise models answer, held against what they state: moments before theory, targets before an engine uses them."""

from __future__ import annotations

import math
import numbers
import weakref
from collections.abc import Callable, Iterator
from itertools import chain

import torch
from torch import Tensor

from kdsim.config import ConfigError, kind_of
from kdsim.population import Population
from kdsim.supervision.base import Batch, Supervision, Target
from kdsim.supervision.declarations import require_declared

TOLERANCE = 1e-6
"""Rounding of moments: of class probabilities absolute, of covariances relative to the largest entry at the point."""
TARGET_TOLERANCE = 1e-4
"""Rounding of targets, which may be float32 sums over many classes."""
CHUNK_NUMBERS = 1 << 18
"""Most entries of covariances that are looked at together: 2 MiB of float64, however large the pool."""

_sound: weakref.WeakKeyDictionary[Population, set[Supervision]] = weakref.WeakKeyDictionary()


def require_sound(supervision: Supervision, population: Population) -> None:
    """Refuse a noise model of which theory could make nothing on this pool; each is looked at once.

    Raises:
        ConfigError: see `require_declared` and `require_moments`.
    """
    try:
        known = supervision in _sound.setdefault(population, set())
    except TypeError:  # it cannot be hashed
        require_declared(supervision)
        return require_moments(supervision, population.p)
    if not known:
        require_declared(supervision)
        require_moments(supervision, population.p)
        _sound[population].add(supervision)


def require_nu(supervision: Supervision, population: Population) -> float:
    """nu on the pool (N, K), refused unless it is a finite number >= 0. Moments as in `require_sound`."""
    require_sound(supervision, population)
    nu = supervision.nu(population.p)
    if isinstance(nu, bool) or not isinstance(nu, numbers.Real) or not 0 <= nu < math.inf:
        raise ConfigError(f"{_called(supervision)}: nu(p) = {nu!r} is not allowed: must be a finite number >= 0")
    return nu


# Moments --------------------------------------------------------------------------------------


def require_moments(supervision: Supervision, p: Tensor) -> None:
    """Refuse mean and covariance that cannot be those of a noise model on p (N, K), at any of the points.

    Both must be finite tensors of the shape, dtype and device that p asks for, a covariance symmetric and positive
    semi-definite. What the class states is held against them: a mean that is p (`unbiased`), sums to one and has a
    covariance whose rows sum to zero (`sums_to_one`), has no negative entry (`on_simplex`), a covariance of zero
    (`noiseless`). Tolerances: `TOLERANCE`, and what rows of p itself are off one.

    Raises:
        ConfigError: with the noise model, the first point where it fails and the value there.
    """
    block = max(1, CHUNK_NUMBERS // max(1, p.shape[-1] ** 2))
    for first in range(0, len(p), block):
        part = p[first : first + block]
        rounding = 2 * (part.sum(-1) - 1).abs() + 100 * torch.finfo(p.dtype).eps  # (B,)
        for bad, words in chain(
            _mean_findings(supervision, part, rounding), _covariance_findings(supervision, part, rounding)
        ):
            if bad.any():
                point = int(bad.nonzero()[0])
                raise ConfigError(f"{_called(supervision)}: at point {first + point} of the pool {words(point)}")


Finding = tuple[Tensor, Callable[[int], str]]
"""Where a condition fails, (B,) bool, and what is wrong at one of the points."""


def _mean_findings(supervision: Supervision, p: Tensor, rounding: Tensor) -> Iterator[Finding]:
    mean = supervision.mean(p)
    _require_form(f"{_called(supervision)}: mean(p), for p of shape {tuple(p.shape)},", mean, p, p.shape)

    def worst(words: str, badness: Tensor) -> Callable[[int], str]:
        def say(n: int) -> str:
            k = int(badness[n].argmax())
            return f"mean(p) {words}: class {k} has {mean[n, k]:.6g} for p = {p[n, k]:.6g}"

        return say

    infinite = ~mean.isfinite()
    yield infinite.any(-1), worst("is not finite", infinite.int())
    if supervision.sums_to_one:
        total = mean.sum(-1)
        words = "mean(p) does not sum to one, though sums_to_one is stated: the sum is"
        yield (total - 1).abs() > TOLERANCE + rounding, lambda n: f"{words} {total[n]:.6g}"
    if supervision.on_simplex:
        yield mean.amin(-1) < -TOLERANCE, worst("leaves the simplex, though on_simplex is stated", -mean)
    if supervision.unbiased:
        difference = (mean - p).abs()
        yield difference.amax(-1) > TOLERANCE, worst("is not p, though unbiased is stated", difference)


def _covariance_findings(supervision: Supervision, p: Tensor, rounding: Tensor) -> Iterator[Finding]:
    classes = p.shape[-1]
    found = supervision.covariance(p)
    what = f"{_called(supervision)}: covariance(p), for p of shape {tuple(p.shape)},"
    _require_form(what, found, p, (*p.shape, classes))

    def worst(words: str, badness: Tensor, mirrored: bool = False) -> Callable[[int], str]:
        def say(n: int) -> str:
            i, j = divmod(int(badness[n].flatten().argmax()), classes)
            mirror = f" and ({j}, {i}) {found[n, j, i]:.6g}" if mirrored else ""
            return f"covariance(p) {words}: entry ({i}, {j}) is {found[n, i, j]:.6g}{mirror}"

        return say

    scale = found.abs().amax((-2, -1))  # (B,); NaN and infinity come through
    yield ~scale.isfinite(), worst("is not finite", (~found.isfinite()).int())
    allowed = TOLERANCE * scale + rounding
    lopsided = (found - found.mT).abs()
    yield lopsided.amax((-2, -1)) > allowed, worst("is not symmetric", lopsided, mirrored=True)
    words = "covariance(p) is not positive semi-definite: the smallest eigenvalue is"
    yield _indefinite(found, allowed), lambda n: f"{words} {torch.linalg.eigvalsh(found[n])[0]:.6g}"
    if supervision.sums_to_one:
        sums = found.sum(-1).abs().amax(-1)
        rows = "covariance(p) has a row with a sum other than zero, though sums_to_one is stated: it is"
        yield sums > classes * allowed, lambda n: f"{rows} {sums[n]:.6g} in size"
    if supervision.noiseless:
        yield scale > rounding, worst("is not zero, though noiseless is stated", found.abs())


def _indefinite(found: Tensor, allowed: Tensor) -> Tensor:
    """Whether symmetric matrices (B, K, K) have an eigenvalue below -allowed (B,). Gershgorin's circles settle most."""
    diagonal = found.diagonal(dim1=-2, dim2=-1)
    lowest = (diagonal + diagonal.abs() - found.abs().sum(-1)).amin(-1)
    bad = lowest < -allowed
    open_ = bad.nonzero()[:, 0]
    if len(open_):
        shift = torch.diag_embed(allowed[open_, None].expand(-1, found.shape[-1]))
        bad[open_] = torch.linalg.cholesky_ex(found[open_] + shift).info > 0
    return bad


# Targets --------------------------------------------------------------------------------------


def require_target(supervision: Supervision, target: object, batch: Batch, where: Callable[[int, int], str]) -> Tensor:
    """The target q (R, V, K) of a batch, refused unless it is one target for each visit as the class states them.

    A shape that would broadcast is refused, and another dtype or device than those of batch.p. Whether all are finite,
    and in the simplex and of sum one where that is stated, is seen from the smallest and the largest entry and the sum
    of all: some thousandths of what it costs to walk with them. Only where these are off are visits looked at.

    Args:
        where: row and column of a visit -> where it is, in words.

    Raises:
        ConfigError: with the noise model, and shapes or the first visit (in time, then replica) where it fails.
    """
    name = _called(supervision)
    if not isinstance(target, Target):
        raise ConfigError(f"{name}: sample gives a {type(target).__name__}: must be a Target")
    p, q = batch.p, target.q
    _require_form(f"{name}: target", q, p, p.shape)
    if target.y is not None and target.y is not batch.y:
        _require_form(f"{name}: y of the target", target.y, p, p.shape[:-1], torch.int64)
    if target.log_probs is not None:
        samples = target.log_probs.shape[:1] if isinstance(target.log_probs, Tensor) else ("S",)
        _require_form(f"{name}: log_probs of the target", target.log_probs, p, (*samples, *p.shape))
    low, high = (end.item() for end in q.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        _refuse(name, "target not finite", q, ~q.isfinite(), where)
    if supervision.on_simplex and not (low >= -TARGET_TOLERANCE and high <= 1 + TARGET_TOLERANCE):
        outside = (q < -TARGET_TOLERANCE) | (q > 1 + TARGET_TOLERANCE)
        _refuse(name, "target outside [0, 1], though on_simplex is stated", q, outside, where)
    visits = q.shape[0] * q.shape[1]
    if supervision.sums_to_one and not abs(q.sum().item() - visits) <= TARGET_TOLERANCE * visits:
        sums = q.sum(-1, keepdim=True)
        words = "target does not sum to one, though sums_to_one is stated"
        _refuse(name, words, sums, ~((sums - 1).abs() <= TARGET_TOLERANCE), where, "the sum is {1:.6g}")
    return q.detach()


def _refuse(
    name: str,
    words: str,
    values: Tensor,
    bad: Tensor,
    where: Callable[[int, int], str],
    what: str = "class {0} has {1:.6g}",
) -> None:
    """Raise for the first visit in time. values, bad: (R, V, K), or (R, V, 1) of sums."""
    if not bad.any():  # rounding of the sum of all
        return
    visit, row = bad.any(-1).T.nonzero()[0].tolist()
    k = int(bad[row, visit].nonzero()[0])
    value = values[row, visit, k].item()
    raise ConfigError(f"{name}: {words}, first at {where(row, visit)}: {what.format(k, value)}")


def _require_form(
    what: str, found: object, like: Tensor, shape: tuple[int, ...], dtype: torch.dtype | None = None
) -> None:
    """Refuse what is no dense tensor of that shape, of the device and the dtype (if not given) of `like`."""
    dtype = dtype or like.dtype
    needed = _form(tuple(shape), dtype, like.device, torch.strided)
    if not isinstance(found, Tensor):
        raise ConfigError(f"{what} is a {type(found).__name__}: must be {needed}")
    right = found.layout == torch.strided and found.device == like.device
    if not (right and found.shape == tuple(shape) and found.dtype == dtype):
        form = _form(found.shape, found.dtype, found.device, found.layout)
        raise ConfigError(f"{what} is {form}: must be {needed}")


def _form(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device, layout: torch.layout) -> str:
    parts = [str(tuple(shape)), str(dtype).removeprefix("torch.")]
    parts += [] if layout == torch.strided else [str(layout).removeprefix("torch.")]
    return " ".join(parts) + ("" if device.type == "cpu" else f" on {device}")


def _called(supervision: Supervision) -> str:
    return f"supervision {kind_of(type(supervision))}"
