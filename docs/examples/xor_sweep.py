"""A study file outside the package: its own problem, its own noise model, and a sweep over both kinds of labels.

kdsim run-study docs/examples/xor_sweep.py
kdsim results docs/examples/xor_sweep.py
"""

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch

from kdsim.config import require_between
from kdsim.population import Population
from kdsim.problems import Problem
from kdsim.studies import NoiseSweep
from kdsim.supervision import SUPERVISIONS, Supervision, Target, require_feasible


@dataclass(frozen=True)
class Xor(Problem):
    """Two classes on the plane whose log odds are sharpness * x1 * x2: softmax-linear in (x1, x2, x1 x2, 1)."""

    sharpness: float = 2.0
    samples: int = 1_000

    name: ClassVar[str] = "xor"

    def population(self, seed: int) -> Population:
        generator = np.random.default_rng(seed)
        plane = torch.from_numpy(generator.standard_normal((self.samples, 2)))
        x = torch.cat([plane, plane.prod(-1, keepdim=True), torch.ones(self.samples, 1)], -1)
        optimum = torch.tensor([[0, 0, 0.5, 0], [0, 0, -0.5, 0]], dtype=torch.float64) * self.sharpness
        p = torch.softmax(x @ optimum.T, -1)
        y = torch.from_numpy((generator.random(self.samples) > p[:, 0].numpy()).astype(np.int64))
        return Population(x=x, p=p, y=y, optimum=optimum)


@dataclass(frozen=True)
class Lapse(Supervision):
    """With probability `rate` a one-hot label y ~ p, otherwise p itself.

    Mean p, covariance rate (diag(p) - p p').
    """

    rate: float = 0.5

    name: ClassVar[str] = "lapse"
    level_field: ClassVar[str] = "rate"
    unbiased: ClassVar[bool] = True

    def __post_init__(self) -> None:
        require_between("rate", self.rate, 0, 1)

    def sample(self, batch, draws):
        p = batch.p  # (R, V, K)
        label = (draws.uniform(0)[..., None] >= p.cumsum(-1)[..., :-1]).sum(-1)
        lapse = draws.uniform(1) < torch.as_tensor(self.rate, device=p.device)  # a level may be (R, 1)
        one_hot = torch.nn.functional.one_hot(label, p.shape[-1]).to(p.dtype)
        return Target(q=torch.where(lapse[..., None], one_hot, p))

    def mean(self, p):
        return p

    def covariance(self, p):
        return self.rate * (torch.diag_embed(p) - p[..., :, None] * p[..., None, :])

    def largest_nu(self, p):
        return Lapse(1.0).nu(p)

    def with_nu(self, nu, p):
        require_feasible(self.name, nu, self.largest_nu(p))
        return Lapse(nu / self.largest_nu(p))


@dataclass(frozen=True)
class XorSweep(NoiseSweep):
    """noise-sweep on the XOR problem, with lapsing annotators beside kdsim's own families."""

    problem: Problem = field(default_factory=Xor)
    families: tuple[str, ...] = ("lapse", "dirichlet")
    levels: int = 4
    steps: int = 5_000

    name: ClassVar[str] = "xor-sweep"
    summary: ClassVar[str] = "noise-sweep on a problem and with a noise model of one's own"
    implementations: ClassVar[tuple[type[Supervision], ...]] = (*SUPERVISIONS, Lapse)
