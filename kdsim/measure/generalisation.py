"""Frozen targets as a data set: empirical minimiser of each replica, training and population loss, and their gap."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from kdsim.config import ConfigError
from kdsim.engines.base import SGD, Lane
from kdsim.engines.recorder import Record
from kdsim.engines.samples import frozen_targets
from kdsim.measure.decomposition import columns
from kdsim.measure.floors import interval
from kdsim.population import Population
from kdsim.students.base import LinearStudent

ITERATIONS = 100
CONVERGED = 1e-11
"""Norm of the gradient at the empirical minimiser, relative to the norm at zero."""
BLOCK_ELEMENTS = 1 << 23
"""Numbers in the largest array: replicas are taken some at a time."""


@dataclass(frozen=True)
class Generalisation:
    """Means over replicas with 95 % intervals; a replica has its own training set and its own frozen targets.

    Losses are those of the student without its ridge, in nats for cross-entropy. The training loss is against the
    frozen targets of the replica, the population loss against fresh targets of the same supervision at fresh points of
    the pool. Their difference is the gap; it is measured as the difference of the two excesses over theta*, which has
    the same mean, since theta* does not depend on the training set, and a far smaller variance.

    What each field is says the schema of results: `kdsim columns`, kdsim/results/columns/measured.py.
    """

    empirical_dist_sq: float | None
    empirical_dist_sq_low: float | None
    empirical_dist_sq_high: float | None
    empirical_excess_risk: float | None
    empirical_excess_risk_low: float | None
    empirical_excess_risk_high: float | None
    empirical_train_loss: float | None
    empirical_train_loss_low: float | None
    empirical_train_loss_high: float | None
    empirical_gap: float | None
    empirical_gap_low: float | None
    empirical_gap_high: float | None
    empirical_accuracy: float | None
    empirical_accuracy_low: float | None
    empirical_accuracy_high: float | None
    train_loss: float | None
    train_loss_low: float | None
    train_loss_high: float | None
    population_loss: float | None
    population_loss_low: float | None
    population_loss_high: float | None
    generalisation_gap: float | None
    generalisation_gap_low: float | None
    generalisation_gap_high: float | None

    def row(self) -> dict[str, float | None]:
        """Field names to values."""
        return asdict(self)


def has_minimiser(student: LinearStudent, sums_to_one: bool) -> bool:
    """Whether every empirical objective has one minimiser that Newton's method finds: convex, and a ridge > 0.

    Softmax regression is convex where targets sum to one; a target of negative sum makes it concave.
    """
    return student.ridge > 0 and (sums_to_one or student.quadratic)


def empirical_minimisers(student: LinearStudent, x: Tensor, q: Tensor, anchor: Tensor) -> Tensor:
    """argmin of mean_i l(theta x_i, q_i) + (ridge/2) |theta - anchor|^2 for each of R data sets, in float64.

    Newton's method with step halving, all data sets at once, started at the anchor.

    Args:
        student: with a ridge > 0; the targets of a softmax regression must sum to one (see `has_minimiser`).
        x: inputs (R, N, d); q: targets (R, N, K); anchor: (K, d).

    Returns:
        theta (R, K, d).

    Raises:
        ConfigError: no ridge, or the iteration did not converge.
    """
    if student.ridge == 0:
        raise ConfigError("the empirical minimiser is only certain to exist with a ridge > 0")
    x, q = x.to(torch.float64), q.to(torch.float64)
    pairs = _products(x)  # (R, N, d (d+1) / 2)
    theta = anchor.expand(len(x), *anchor.shape).clone()
    scale = student.gradient(torch.zeros_like(theta), x, q, anchor).flatten(1).norm(dim=1)
    scale += torch.finfo(torch.float64).tiny
    for _ in range(ITERATIONS):
        gradient = student.gradient(theta, x, q, anchor)
        if (gradient.flatten(1).norm(dim=1) <= CONVERGED * scale).all():
            return theta
        hessian = _hessians(student, theta, x, pairs)
        step = torch.linalg.solve(hessian, gradient.flatten(1)).view_as(theta)
        theta = _halving(student, theta, step, (gradient * step).sum((-2, -1)), x, q, anchor)
    raise ConfigError(f"Newton's method did not find the empirical minimiser in {ITERATIONS} iterations")


def _halving(
    student: LinearStudent, theta: Tensor, step: Tensor, decrement: Tensor, x: Tensor, q: Tensor, anchor: Tensor
) -> Tensor:
    """theta - rate step, the rate of each data set halved until its objective falls by a tenth of the promise."""
    value = student.objective(theta, x, q, anchor)
    rate = torch.ones_like(decrement)
    for _ in range(30):
        candidate = theta - rate[:, None, None] * step
        new = student.objective(candidate, x, q, anchor)
        # Near the minimiser the decrease is below rounding: the full step is accepted there.
        short = (new > value - 0.1 * rate * decrement) & (decrement > 1e-12 * (1 + value.abs()))
        if not short.any():
            break
        rate = torch.where(short, rate / 2, rate)
    return candidate


def _products(x: Tensor) -> Tensor:
    """x_i x_j for i <= j. (..., d) -> (..., d (d+1) / 2)."""
    rows, cols = torch.triu_indices(x.shape[-1], x.shape[-1])
    return x[..., rows] * x[..., cols]


def _hessians(student: LinearStudent, theta: Tensor, x: Tensor, pairs: Tensor) -> Tensor:
    """Hessian of the empirical objective of each data set, (R, K d, K d)."""
    replicas, size, features = x.shape
    classes = theta.shape[1]
    curvature = student.output_hessian(torch.einsum("rkd,rnd->rnk", theta, x))  # (R, N, K, K)
    k, j = torch.triu_indices(classes, classes)
    packed = curvature[..., k, j].mT @ pairs / size  # (R, K (K+1) / 2, d (d+1) / 2)
    a, b = torch.triu_indices(features, features)
    blocks = packed.new_empty(replicas, len(k), features, features)
    blocks[..., a, b] = blocks[..., b, a] = packed
    hessian = packed.new_empty(replicas, classes, features, classes, features)
    hessian[:, k, :, j] = hessian[:, j, :, k] = blocks.movedim(1, 0)
    flat = hessian.view(replicas, classes * features, classes * features)
    return flat + student.ridge * torch.eye(classes * features, dtype=flat.dtype)


def generalise(
    student: LinearStudent,
    population: Population,
    lane: Lane,
    sgd: SGD,
    record: Record,
    final: Tensor,
    *,
    reference: Tensor,
    anchor: Tensor,
) -> Generalisation:
    """Training and population loss of a block of replicas, at the end of SGD and at their empirical minimisers.

    Args:
        lane: the block, as the engine ran it: its targets are drawn again, exactly as the engine drew them.
        sgd: with frozen targets.
        record: of the block, which says whether a replica diverged.
        final: parameters at the end of SGD, (R, K, d).
        reference: theta*, (K, d).
        anchor: the point to which the ridge pulls, (K, d).

    Returns:
        All None where some replica diverged or `has_minimiser` does not hold.
    """
    diverged = bool((record.diverged_at >= 0).any())
    if diverged or not has_minimiser(student, lane.supervision.sums_to_one):
        return Generalisation(**dict.fromkeys(Generalisation.__annotations__))
    mean_target = lane.supervision.mean(population.p)
    # Cross-entropy is affine in the target; half squared error at a fresh target has half its variance more.
    noise = lane.supervision.covariance(population.p).diagonal(dim1=-2, dim2=-1).sum(-1).mean() / 2
    fresh = noise if student.quadratic else torch.zeros_like(noise)
    size = sgd.training_set or population.size
    largest = max(size * (population.features + 1) * population.features // 2, population.size * population.classes)
    block = max(1, BLOCK_ELEMENTS // max(largest, size * population.classes**2))
    parts = []
    for first in range(0, lane.replicas, block):
        members = slice(first, min(first + block, lane.replicas))
        some = Lane(lane.supervision, lane.step_size, lane.seed, members.stop - first, lane.first_replica + first)
        index, q = frozen_targets(population, [some], sgd)
        x, q = population.x[index], q.to(torch.float64)
        minimisers = empirical_minimisers(student, x, q, anchor)
        parts.append(
            _Losses(student, population, x, q, mean_target, reference).columns(final[members].double(), minimisers)
        )
    values = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    values["population_loss"] = values["population_loss"] + fresh
    found: dict[str, float | None] = {}
    for name, each in values.items():
        found |= columns(name, interval(each))
    return Generalisation(**found)


@dataclass(frozen=True)
class _Losses:
    """Losses of parameters on the training sets of R replicas, x (R, N, d) and q (R, N, K), and on the pool."""

    student: LinearStudent
    population: Population
    x: Tensor
    q: Tensor
    mean_target: Tensor
    reference: Tensor

    def columns(self, final: Tensor, minimisers: Tensor) -> dict[str, Tensor]:
        """The columns of `Generalisation`, (R,) each."""
        pool = self.population
        at_reference = self.student.loss(pool.x @ self.reference.T, pool.p).mean()
        best = torch.einsum("kd,pd->pk", self.reference, pool.x)
        outputs = torch.einsum("rkd,pd->rpk", minimisers, pool.x)
        chosen = outputs.argmax(-1)  # (R, P)
        return {
            "empirical_dist_sq": (minimisers - self.reference).square().sum((-2, -1)),
            "empirical_excess_risk": self.student.loss(outputs, pool.p).mean(-1) - at_reference,
            "empirical_train_loss": self._train(minimisers),
            "empirical_gap": self._gap(minimisers, best),
            "empirical_accuracy": pool.p.expand(len(chosen), -1, -1).gather(-1, chosen[..., None])[..., 0].mean(-1),
            "train_loss": self._train(final),
            "population_loss": self._pool(torch.einsum("rkd,pd->rpk", final, pool.x)),
            "generalisation_gap": self._gap(final, best),
        }

    def _train(self, theta: Tensor) -> Tensor:
        return self.student.loss(torch.einsum("rkd,rnd->rnk", theta, self.x), self.q).mean(-1)

    def _pool(self, outputs: Tensor) -> Tensor:
        return self.student.loss(outputs, self.mean_target).mean(-1)

    def _gap(self, theta: Tensor, best: Tensor) -> Tensor:
        """[f(theta) - f(theta*)] - [f_train(theta) - f_train(theta*)]."""
        excess = self._pool(torch.einsum("rkd,pd->rpk", theta, self.population.x)) - self._pool(best)
        return excess - (self._train(theta) - self._train(self.reference.expand_as(theta)))
