"""Claims that are exact statements: P1, P2, and the two formulas of the gradient noise at the optimum."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import torch

from kdsim.claims.base import Claim
from kdsim.claims.exact import STUDENTS, GradientNoise, Propositions
from kdsim.claims.verdicts import Part, from_values, without_chance
from kdsim.results.store import StudyResults
from kdsim.study.base import Study

TOLERANCE = 1e-9
"""Of what is zero, or equal, but for rounding in float64; controls are at least 1,000 times larger."""


@dataclass(frozen=True)
class ExactStatements(Study):
    """Propositions and noise formulas on generated cases.

    Attributes:
        students: softmax-regression and mlp.
        count: cases of each.
        visits: drawn targets of each case.
        nu: of independent noise.
        seed: draws cases and targets.
    """

    name: ClassVar[str] = "exact-statements"
    summary: ClassVar[str] = "propositions 1 and 2 and the formulas of the gradient noise, on generated cases"
    figure: ClassVar[None] = None  # type: ignore[assignment]  # nothing is drawn

    students: tuple[str, ...] = STUDENTS
    count: int = 200
    visits: int = 4_000
    nu: float = 0.05
    seed: int = 0

    def quick(self) -> Self:
        return replace(self, count=min(self.count, 60), visits=min(self.visits, 1_000))

    def cells(self) -> tuple[Propositions | GradientNoise, ...]:
        students: tuple[Any, ...] = self.students  # those of `STUDENTS`; others are refused there
        found: list[Propositions | GradientNoise] = [
            Propositions(student, self.count, self.seed) for student in students
        ]
        for supervision in ("one-hot", "independent"):
            found += [
                GradientNoise(student, supervision, self.nu, self.count, self.visits, self.seed) for student in students
            ]
        return tuple(found)


def _study(quick: bool) -> tuple[Study, ...]:
    return (ExactStatements().quick() if quick else ExactStatements(),)


def _rows(results: StudyResults, kind: str, **fields: str) -> list[dict[str, Any]]:
    return [
        row
        for row in results.records
        if row["computation"] == kind and all(row[key] == value for key, value in fields.items())
    ]


def _zero(row: Mapping[str, Any], key: str, quantity: str) -> Part:
    return without_chance(
        f"{row['student']}: {quantity}", f"largest {quantity}", row[key], row["cases"], below=TOLERANCE
    )


def _control(row: Mapping[str, Any], key: str, quantity: str) -> Part:
    return without_chance(
        f"{row['student']}: control, {quantity}", f"smallest {quantity}", row[key], row["cases"], above=1e3 * TOLERANCE
    )


def _p1(found: Sequence[StudyResults]) -> list[Part]:
    parts = []
    for row in _rows(found[0], "propositions"):
        parts += [
            _zero(row, "risk_difference", "difference of the risks"),
            _zero(row, "minimum_difference", "difference of the minimum from E H(p)"),
            _zero(row, "gradient", "gradient of the one-hot risk at theta*"),
            _zero(row, "below_minimum", "one-hot risk below that at theta*"),
            _control(row, "control_gradient", "gradient at theta* under a biased supervision"),
        ]
    return parts


def _p2(found: Sequence[StudyResults]) -> list[Part]:
    parts = []
    for row in _rows(found[0], "propositions"):
        parts += [
            _zero(row, "sample_gradient", "gradient of a sample at theta*"),
            _control(row, "control_sample_gradient", "gradient of a sample under a biased supervision"),
        ]
    return parts


def _noise(supervision: str) -> Callable[[Sequence[StudyResults]], list[Part]]:
    def parts(found: Sequence[StudyResults]) -> list[Part]:
        result = found[0]
        rows = _rows(result, "gradient-noise", supervision=supervision)
        drawn, exact = [], []
        for row in rows:
            own = result.replicas[result.replicas["cell"] == row["cell"]]
            values = torch.tensor(own["ratio"].to_numpy())
            drawn.append(
                from_values(f"{row['student']}: drawn targets", "drawn over formula", values, above=0.95, below=1.05)
            )
            exact.append(_zero(row, "enumeration_error", "relative error against the sum over classes"))
            if row.get("hessian_error") is not None:
                exact.append(_zero(row, "hessian_error", "relative error against the Hessian's trace"))
        return drawn + exact

    return parts


_ZERO = f"at most {TOLERANCE:g} in every case"
_CASES = (
    "generated pools of 5 to 25 points whose BCP is exactly that of a softmax regression, or of an MLP, at known "
    "parameters; gradients by automatic differentiation in float64"
)

CLAIMS = (
    Claim(
        name="p1",
        source="[M] proposition 1 (P1)",
        statement=(
            "The BCP risk has the same minimiser as the one-hot risk, and the same minimum, E H(p(x)), where the "
            "student can represent the BCP."
        ),
        statistic=(
            "largest difference of the two risks at theta* and at random parameters; of the minimum from E H(p); "
            "largest gradient of the one-hot risk at theta*, and how far it is undercut at random parameters. Over "
            f"{_CASES}"
        ),
        rule=f"Holds if each is {_ZERO}, and a biased supervision, as a control, moves the minimiser in every case.",
        studies=_study,
        parts=_p1,
    ),
    Claim(
        name="p2",
        source="[M] proposition 2 (P2)",
        statement=(
            "Interpolation: under exact BCP the gradient of every sample vanishes at theta*, so that theta* minimises "
            "every empirical risk."
        ),
        statistic=f"largest norm of a sample's gradient at theta* under exact BCP, over {_CASES}",
        rule=f"Holds if it is {_ZERO}, and under a biased supervision, as a control, it is not in any case.",
        studies=_study,
        parts=_p2,
    ),
    Claim(
        name="noise-one-hot",
        source="[M], section not at hand (sigma*^2 of one-hot labels)",
        statement=(
            "With one-hot labels sigma*^2 = E sum_k |J_k|^2 / p_k = tr Fisher at b = 1, J_k the gradient of phi_k."
        ),
        statistic=(
            "squared norm of gradients at theta*, of labels drawn by the supervision, over the formula; relative error "
            f"against the sum over all labels, and against the trace of the risk's Hessian. Over {_CASES}"
        ),
        rule=f"Holds if the mean ratio over cases is shown to lie in [0.95, 1.05], and errors are {_ZERO}.",
        studies=_study,
        parts=_noise("one-hot"),
    ),
    Claim(
        name="noise-independent",
        source="[M], section not at hand (sigma*^2 of independent noise)",
        statement=(
            "With BCP disturbed by independent noise of variance nu, p + sqrt(nu) N(0, I), sigma*^2 = nu E sum_k "
            "|J_k|^2 / p_k^2 at b = 1."
        ),
        statistic=(
            "squared norm of gradients at theta*, of targets drawn by the supervision, over the formula; relative "
            f"error against the sum over classes. Over {_CASES}"
        ),
        rule=f"Holds if the mean ratio over cases is shown to lie in [0.95, 1.05], and errors are {_ZERO}.",
        studies=_study,
        parts=_noise("independent"),
    ),
)
