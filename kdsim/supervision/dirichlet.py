"""Dirichlet noise around the Bayes class probabilities."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Self

import torch
from torch import Tensor

from kdsim import simplex
from kdsim.config import ConfigError, require_positive
from kdsim.rng import Draws, box_muller, to_uniform
from kdsim.supervision.base import Batch, Supervision, Target, require_feasible
from kdsim.supervision.sampling import classes_first, classes_last, level_like, softmax


@dataclass(frozen=True)
class Dirichlet(Supervision):
    """q ~ Dirichlet(c p), which joins exact (c -> infinity) and one-hot (c -> 0).

    Mean p, covariance (diag(p) - p p') / (c + 1).

    Drawn as gammas G_k ~ Gamma(c p_k), q = G / sum G, in logarithms throughout: at small c p_k the
    gammas themselves underflow. G_a = G_{a+1} U^{1/a} holds for every a > 0 and gives

        log G_k = log d_k + 3 log(1 + t_k) - E_k / (c p_k),   d_k = c p_k + 2/3,

    with E_k exponential and d_k (1 + t_k)^3 ~ Gamma(c p_k + 1) by rejection. E_k / 0 = infinity gives
    exactly 0 to a class with p_k = 0.

    Slots of K classes: the first attempts take the normals of slots 0 .. K-1 (K even; K odd: .. K), the
    uniform of class k from slot 2K + k and its exponential from slot 3K + k; attempt j > 0 of class k takes slots
    4 (jK + k) + 0, 1 (normal) and 2 (uniform). So a visit's value depends on no other visit's rejections.

    Attributes:
        concentration: c > 0, pure number; c + 1 is the number of one-hot labels whose mean has this covariance.

    Source: T. S. Ferguson, "A Bayesian analysis of some nonparametric problems", Ann. Statist. 1973 (gammas);
    G. Marsaglia, W. W. Tsang, "A simple method for generating gamma variables", ACM TOMS 26 (2000), section 2
    (rejection) and section 6 (boost).
    """

    concentration: float = 1.0

    name: ClassVar[str] = "dirichlet"
    level_field: ClassVar[str] = "concentration"
    unbiased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_positive("concentration", self.concentration)

    def sample(self, batch: Batch, draws: Draws) -> Target:
        """Marsaglia-Tsang gammas in logarithms, normalised over the classes."""
        p = classes_first(batch.p)  # (K, R, V)
        # Beyond these ends nothing changes, and float32 would overflow.
        concentration = level_like(self.concentration, p).clamp(1e-30, 1e30)
        shape = concentration * p
        offset = shape + 2 / 3
        # Dividing by the concentration first keeps the logarithm small, hence exact, at large ones.
        log_gamma = (offset / concentration.clamp(min=1)).log_()
        log_gamma += 3 * _relative_cube_root(offset, draws).log1p_()
        log_gamma -= _exponentials(p.shape[0], draws) / shape
        return Target(q=classes_last(softmax(log_gamma)).to(p.dtype), y=batch.y)

    def mean(self, p: Tensor) -> Tensor:
        """E[q | p] = p. (..., K) -> (..., K)."""
        return p

    def covariance(self, p: Tensor) -> Tensor:
        """Cov[q | p] = (diag(p) - p p') / (c + 1). (..., K) -> (..., K, K)."""
        return simplex.one_hot_covariance(p) / (self.concentration + 1)

    def largest_nu(self, p: Tensor) -> float:
        """One-hot's nu, E[1 - |p|^2] / K, which is approached and not reached."""
        return simplex.gini(p).mean().item() / p.shape[-1]

    def with_nu(self, nu: float, p: Tensor) -> Self:
        """c = nu_onehot / nu - 1, for 0 < nu < nu_onehot.

        Raises:
            ConfigError: nu outside this range; the message states nu_onehot.
        """
        largest = self.largest_nu(p)
        require_feasible(self.name, nu, largest, open_end=True)
        if nu == 0:
            raise ConfigError(
                f"nu = 0 is not feasible for {self.name}: must be > 0 and below {largest:.6g}; for nu = 0 use exact"
            )
        return replace(self, concentration=(largest - nu) / nu)


def _exponentials(classes: int, draws: Draws) -> Tensor:
    """Standard exponentials -log U, one for each class, (K, R, V).

    The logarithm is taken in float64, where U = (word + 1/2) / 2^32 is exact: -log U keeps its relative
    precision near U = 1, which decides between the classes when E_k / (c p_k) is huge.
    """
    words = (draws.words(3 * classes + k) for k in range(classes))
    return -torch.stack([to_uniform(w, torch.float64).log_().to(draws.dtype) for w in words])


def _relative_cube_root(offset: Tensor, draws: Draws) -> Tensor:
    """t such that d (1 + t)^3 ~ Gamma(d + 1/3), for d = `offset` >= 2/3. (K, R, V) -> (K, R, V)."""
    classes = len(offset)
    normal = draws.normals(classes)
    uniform = torch.stack([draws.uniform(2 * classes + k) for k in range(classes)])
    t = normal / (3 * offset.sqrt())
    # The squeeze accepts nine in ten.
    place = (uniform >= 1 - 0.0331 * normal.square().square_()).flatten().nonzero()[:, 0]
    offset = offset.flatten()[place]
    bad = ~_accept(offset, normal.flatten()[place], uniform.flatten()[place])
    place, offset = place[bad], offset[bad]
    rejected = torch.zeros_like(t, dtype=torch.bool)
    rejected.view(-1)[place] = True
    draws = draws.take(rejected)
    number = place // rejected[0].numel()  # the class
    three = torch.arange(3, device=t.device)[:, None]
    attempt = 0
    while len(place):
        attempt += 1
        first, second, uniform = draws.uniform(4 * (attempt * classes + number) + three)
        normal, _ = box_muller(first, second)
        good = _accept(offset, normal, uniform)
        t.view(-1)[place[good]] = (normal / (3 * offset.sqrt()))[good]
        bad = ~good
        place, number, offset, draws = place[bad], number[bad], offset[bad], draws.take(bad)
    return t


def _accept(offset: Tensor, normal: Tensor, uniform: Tensor) -> Tensor:
    """The exact test log U < x^2/2 + d - dv + d log v, v = (1 + t)^3 and t = x / (3 sqrt d). (M,) -> (M,) bool.

    With x^2/2 = 9 d t^2 / 2 the right side is d (3 (log(1 + t) - t + t^2/2) - t^3), which in float64 does
    not cancel at any d met here. For t <= -1 the logarithm is no number and the test fails, as it must.
    """
    d, x = offset.double(), normal.double()
    t = x / (3 * d.sqrt())
    return uniform.double().log() < d * (3 * (t.log1p() - t + t.square() / 2) - t**3)
