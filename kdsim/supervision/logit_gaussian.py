"""Gaussian noise on the logits of the Bayes class probabilities."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch
from scipy.special import ndtri
from torch import Tensor

from kdsim.config import require_between
from kdsim.rng import Draws
from kdsim.supervision.base import Batch, Supervision, Target
from kdsim.supervision.sampling import classes_first, classes_last, is_zero, level_like, softmax

LOG2_POINTS = 13
"""Moments are averages over 2^13 quasi-random points."""

_CHUNK_ELEMENTS = 1 << 22  # of float64: bounds the memory of a moment at about 100 MB for any pool


@dataclass(frozen=True)
class LogitGaussian(Supervision):
    """q = softmax(log p + s z), z ~ N(0, I). Biased; a class with p_k = 0 keeps 0.

    Mean and covariance have no closed form: they are averages over a scrambled Sobol set of 8192 points with a
    fixed seed, z by the normal quantile function. Largest absolute error of an entry, measured on random
    p with K = 2, 5 and 10 against 2^19 points of another scrambling (bias of q at these s: 0.001 to 0.9):

        s      0.1     0.5     1       3       10      100
        error  3e-6    3e-5    2e-4    1e-3    3e-3    4e-3

    Attributes:
        scale: s >= 0, standard deviation of each logit, in nats.

    Source: docs/theory.md; I. M. Sobol', USSR Comput. Math. Math. Phys. 7 (1967); A. B. Owen,
    "Scrambling Sobol' and Niederreiter-Xing points", J. Complexity 14 (1998).
    """

    scale: float = 1.0

    name: ClassVar[str] = "logit-gaussian"
    level_field: ClassVar[str] = "scale"
    unbiased: ClassVar[bool] = False

    def __post_init__(self) -> None:
        require_between("scale", self.scale, 0, math.inf, ends="[)")

    @property
    def noiseless(self) -> bool:
        """Whether the scale is zero."""
        return is_zero(self.scale)

    @property
    def logit_scale(self) -> float | None:
        """1 at scale zero, where the target is p."""
        return 1.0 if self.noiseless else None

    def sample(self, batch: Batch, draws: Draws) -> Target:
        """K normals from the slots 0 .. K-1 (K odd: .. K)."""
        p = classes_first(batch.p)  # (K, R, V)
        logits = p.log() + draws.normals(len(p)) * self._scale(p)
        return Target(q=classes_last(softmax(logits)).to(p.dtype), y=batch.y)

    def mean(self, p: Tensor) -> Tensor:
        """E[q | p] by quasi-Monte Carlo. (..., K) -> (..., K)."""
        return self._moment(p, _mean)

    def covariance(self, p: Tensor) -> Tensor:
        """Cov[q | p] by quasi-Monte Carlo. (..., K) -> (..., K, K)."""
        return self._moment(p, _covariance)

    def _scale(self, p: Tensor) -> Tensor:
        return level_like(self.scale, p).clamp(max=1e30)  # float32 overflows above, and q is a vertex long before

    def _moment(self, p: Tensor, moment: Callable[[Tensor], Tensor]) -> Tensor:
        """`moment` of q (B, K, M) over the M points, for p in chunks of B rows."""
        classes = p.shape[-1]
        noise = self._scale(p).double() * _normals(classes).to(p.device)  # (K, M)
        rows = p.reshape(-1, classes).double()
        chunks = rows.split(max(1, _CHUNK_ELEMENTS // noise.numel()))
        moments = torch.cat([moment((chunk.log()[..., None] + noise).softmax(1)) for chunk in chunks])
        return moments.reshape(*p.shape[:-1], *moments.shape[1:]).to(p.dtype)


def _mean(q: Tensor) -> Tensor:
    return q.mean(-1)


def _covariance(q: Tensor) -> Tensor:
    centred = q - q.mean(-1, keepdim=True)
    return centred @ centred.mT / q.shape[-1]


@functools.lru_cache(maxsize=8)
def _normals(classes: int) -> Tensor:
    """Quasi-random standard normals, (K, M) float64."""
    from scipy.stats import qmc  # takes half a second to import, and only this family needs it

    uniform = qmc.Sobol(classes, scramble=True, bits=30, seed=0).random_base2(LOG2_POINTS)
    return torch.from_numpy(ndtri(uniform + 2.0**-31)).T.contiguous()  # points are multiples of 2^-30
