"""What the ledger computes without training: the propositions and two formulas of sigma*^2, on generated cases.

A case is a pool of points whose Bayes class probabilities (BCP) are exactly those of a student at known parameters
theta*: softmax regression with drawn weights, or a multilayer perceptron with drawn weights. Gradients are those of
automatic differentiation of the loss, so that no formula of kdsim checks itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from kdsim import simplex
from kdsim.config import require_count
from kdsim.engines.base import SGD, Lane
from kdsim.engines.samples import Samples
from kdsim.measure.floors import interval
from kdsim.population import Population
from kdsim.results.columns.computed import GRADIENT_NOISE, PROPOSITIONS
from kdsim.results.schema import Column
from kdsim.students import MLP
from kdsim.study.base import Computation, Computed
from kdsim.supervision import Independent, OneHot

STUDENTS = ("softmax-regression", "mlp")
TEMPERATURE = 2.0
"""Of the biased supervision that serves as a control: with it neither proposition holds."""


@dataclass(frozen=True, eq=False)  # holds tensors
class Case:
    """A pool with p = softmax(outputs(theta*, x)).

    Attributes:
        outputs: parameters (P,) and inputs (N, d) to outputs (N, K).
        theta: theta*, (P,).
        population: x (N, d) and p (N, K), float64.
    """

    outputs: Callable[[Tensor, Tensor], Tensor]
    theta: Tensor
    population: Population


def cases(student: str, count: int, seed: int) -> Iterator[Case]:
    """Generated cases: 2 to 6 classes, 2 to 6 features and a constant, 5 to 25 points, weights of scale 0.3 to 2."""
    generator = np.random.default_rng([seed, STUDENTS.index(student)])
    for _ in range(count):
        classes, features, size = (int(generator.integers(*ends)) for ends in ((2, 7), (2, 7), (5, 26)))
        x = np.concatenate([generator.standard_normal((size, features)), np.ones((size, 1))], axis=1)
        scale = float(generator.uniform(0.3, 2.0))
        if student == "mlp":
            network = MLP((2 * classes,))
            outputs: Callable[[Tensor, Tensor], Tensor] = network.outputs
            parameters = network.size(features + 1, classes)
        else:
            outputs = _linear(classes)
            parameters = classes * (features + 1)
        theta = torch.from_numpy(scale * generator.standard_normal(parameters))
        points = torch.from_numpy(x)
        yield Case(outputs, theta, Population(x=points, p=torch.softmax(outputs(theta, points), -1)))


def _linear(classes: int) -> Callable[[Tensor, Tensor], Tensor]:
    return lambda theta, x: x @ theta.view(classes, -1).T


# Losses and gradients by automatic differentiation -----------------------------------------------------------


def sample_loss(case: Case, theta: Tensor, x: Tensor, q: Tensor) -> Tensor:
    """-sum_k q_k log phi_k(x) of one sample. (P,), (d,), (K,) -> ()."""
    return -(q * torch.log_softmax(case.outputs(theta, x[None])[0], -1)).sum()


def sample_gradients(case: Case, theta: Tensor, x: Tensor, q: Tensor) -> Tensor:
    """Of each sample, (V, d), (V, K) -> (V, P)."""
    gradient = torch.func.grad(lambda point, one, target: sample_loss(case, point, one, target))
    return torch.func.vmap(gradient, (None, 0, 0))(theta, x, q)


def bcp_risk(case: Case, theta: Tensor) -> Tensor:
    """Mean over the pool of the loss at the BCP."""
    losses = torch.log_softmax(case.outputs(theta, case.population.x), -1)
    return -(case.population.p * losses).sum(-1).mean()


def one_hot_risk(case: Case, theta: Tensor) -> Tensor:
    """E over x and y ~ p(x) of the loss at the label, label by label."""
    x, p = case.population.x, case.population.p
    labels = torch.eye(p.shape[1], dtype=torch.float64)
    each = [
        torch.nn.functional.cross_entropy(case.outputs(theta, x), label.expand_as(p), reduction="none")
        for label in labels
    ]
    return (p * torch.stack(each, -1)).sum(-1).mean()


# Computations -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Propositions(Computation):
    """P1 and P2 on generated cases.

    Attributes:
        student: what is realisable, and checked.
        count: number of cases.
        seed: draws them.
    """

    student: Literal["softmax-regression", "mlp"] = "softmax-regression"
    count: int = 60
    seed: int = 0

    name: ClassVar[str] = "propositions"
    columns: ClassVar[tuple[Column, ...]] = PROPOSITIONS

    def __post_init__(self) -> None:
        require_count("count", self.count)

    def compute(self) -> Computed:
        """One row a case, and the largest over all cases.

        risk_difference: |BCP risk - one-hot risk| at theta* and at a random theta. minimum_difference: |one-hot risk at
        theta* - E H(p)|. gradient: norm of the one-hot risk's gradient at theta*. below_minimum: how far the one-hot
        risk at random parameters is below that at theta*, negative if nowhere. sample_gradient: largest norm of a
        sample's gradient at theta* under exact BCP. Controls under p^(1/2)/Z, which is biased, smallest over the cases:
        control_gradient, the norm of the risk's gradient; control_sample_gradient, the largest of a sample.
        """
        rows = [
            _checked(case, number, self.seed) for number, case in enumerate(cases(self.student, self.count, self.seed))
        ]
        table = pd.DataFrame(rows)
        least = [name for name in table if name.startswith("control")]
        worst = {name: table[name].min() if name in least else table[name].max() for name in table if name != "replica"}
        return Computed({"cases": self.count, **worst}, replicas=table)


def _checked(case: Case, number: int, seed: int) -> dict[str, float]:
    generator = torch.Generator().manual_seed(seed * 100_003 + number)
    x, p = case.population.x, case.population.p
    others = [
        case.theta + scale * torch.randn(case.theta.shape, dtype=torch.float64, generator=generator)
        for scale in (0.01, 0.1, 1.0)
    ]
    at_optimum = one_hot_risk(case, case.theta)
    tempered = torch.softmax(p.clamp(min=1e-300).log() / TEMPERATURE, -1)
    biased = sample_gradients(case, case.theta, x, tempered)
    return {
        "replica": number,
        "risk_difference": max(
            (bcp_risk(case, theta) - one_hot_risk(case, theta)).abs().item() for theta in (case.theta, *others)
        ),
        "minimum_difference": (at_optimum - simplex.entropy(p).mean()).abs().item(),
        "gradient": torch.func.grad(lambda theta: one_hot_risk(case, theta))(case.theta).norm().item(),
        "below_minimum": max((at_optimum - one_hot_risk(case, theta)).item() for theta in others),
        "sample_gradient": sample_gradients(case, case.theta, x, p).norm(dim=1).max().item(),
        "control_gradient": biased.mean(0).norm().item(),
        "control_sample_gradient": biased.norm(dim=1).max().item(),
    }


@dataclass(frozen=True)
class GradientNoise(Computation):
    """The formulas of sigma*^2 on generated cases, against sums over labels, the Hessian's trace, and drawn targets.

    Attributes:
        student: as in `Propositions`.
        supervision: "one-hot", or "independent" noise of variance `nu`.
        nu: of independent noise.
        count: number of cases.
        visits: drawn targets of each case, at points drawn with replacement.
        seed: draws cases and targets.
    """

    student: Literal["softmax-regression", "mlp"] = "softmax-regression"
    supervision: Literal["one-hot", "independent"] = "one-hot"
    nu: float = 0.05
    count: int = 60
    visits: int = 1_000
    seed: int = 0

    name: ClassVar[str] = "gradient-noise"
    columns: ClassVar[tuple[Column, ...]] = GRADIENT_NOISE

    def __post_init__(self) -> None:
        require_count("count", self.count)
        require_count("visits", self.visits, least=2)

    def compute(self) -> Computed:
        """One row a case; the largest relative error of the formula, and the mean ratio of drawn noise to it.

        formula: E sum_k |J_k|^2 / p_k, or nu E sum_k |J_k|^2 / p_k^2, J_k the gradient of phi_k. enumerated: E of the
        squared norm of a sample's gradient at theta*, summed over labels with their probabilities, or over the classes
        on which independent errors of variance nu act. hessian: trace of the Hessian of the risk at theta* (one-hot
        only: there Fisher = Hessian). ratio: mean squared norm of drawn gradients over the formula.
        """
        rows = [self._case(case, number) for number, case in enumerate(cases(self.student, self.count, self.seed))]
        table = pd.DataFrame(rows)
        ratio = interval(torch.tensor(table["ratio"].to_numpy()))
        errors = {name: table[name].max() for name in ("enumeration_error", "hessian_error") if name in table}
        drawn = {"ratio": ratio.mean, "ratio_low": ratio.low, "ratio_high": ratio.high}
        return Computed({"cases": self.count, **errors, **drawn}, replicas=table)

    def _case(self, case: Case, number: int) -> dict[str, float]:
        x, p, theta = case.population.x, case.population.p, case.theta
        jacobian = torch.func.jacrev(lambda point: torch.softmax(case.outputs(point, x), -1))(theta)  # (N, K, P)
        squares = jacobian.square().sum(-1)  # (N, K) |J_k|^2
        size, classes = p.shape
        labels = torch.eye(classes, dtype=torch.float64).repeat(size, 1)  # (N K, K)
        each = (
            sample_gradients(case, theta, x.repeat_interleave(classes, 0), labels).square().sum(-1).view(size, classes)
        )
        row: dict[str, float] = {"replica": number}
        if self.supervision == "one-hot":
            formula = (squares / p).sum(-1).mean()
            enumerated = (p * each).sum(-1).mean()
            hessian = torch.func.hessian(lambda point: bcp_risk(case, point))(theta)
            row["hessian_error"] = (hessian.trace() / formula - 1).abs().item()
            drawn: OneHot | Independent = OneHot()
        else:
            # The gradient is linear in the target, and its mean vanishes at theta*: independent errors add up.
            formula = self.nu * (squares / p.square()).sum(-1).mean()
            enumerated = self.nu * each.sum(-1).mean()
            drawn = Independent(self.nu)
        lane = Lane(drawn, 1.0, self.seed * 100_003 + number, 1)
        samples = Samples(case.population, [lane], SGD(self.visits, 1), torch.float64, torch.device("cpu"))
        index, q = samples.chunk(0, self.visits)
        found = sample_gradients(case, theta, x[index[0]], q[0]).square().sum(-1).mean()
        return row | {
            "formula": formula.item(),
            "enumeration_error": (enumerated / formula - 1).abs().item(),
            "ratio": (found / formula).item(),
        }
