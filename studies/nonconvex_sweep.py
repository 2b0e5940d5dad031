"""nonconvex-sweep: excess-risk floor against the step size for students that are not linear in their parameters."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

from kdsim.config import choose, require, require_between, require_count, require_positive
from kdsim.engines import SGD, Recording
from kdsim.problems import GaussianMixture, Problem, SimplexLinear
from kdsim.students import MLP, FactoredLeastSquares, NetworkStudent
from kdsim.study.base import Cell, Study
from kdsim.supervision import Dirichlet, Exact, OneHot, Supervision

STUDENTS = ("factored-least-squares", "mlp")


@dataclass(frozen=True)
class NonconvexSweep(Study):
    """Is the larger stable step size special to exact BCP once the student is not convex?

    Factored least squares W = A B on a linear BCP, and a relu MLP on a softmax-linear BCP that it can represent, each
    from small step sizes to divergence under exact BCP, one-hot labels and Dirichlet noise. All supervisions start at
    the same points and visit the same samples.

    Attributes:
        students: of "factored-least-squares" and "mlp".
        linear_problem: pool of the factored student.
        mixture_problem: pool of the MLP.
        rank: m of the factored student.
        widths: of the MLP's hidden layers; 2 K or more in the first can represent the BCP.
        nu_fractions: Dirichlet levels, as fractions of one-hot's nu.
        factored_largest, mlp_largest: largest step size of each student.
        octaves: the smallest step size is the largest / 2^octaves.
        per_octave: step sizes in each factor of two.
        steps, batch_size, dtype: see SGD.
        checkpoints, tail_fraction: see Recording.
        replicas: independent runs of each cell, each from a start of its own.
        seed: draws the pools and keys all random numbers.
        engine, device: what runs it; auto takes the fastest engine that can.
    """

    name: ClassVar[str] = "nonconvex-sweep"
    summary: ClassVar[str] = "excess-risk floor and divergence against the step size, factored least squares and MLP"
    figure: ClassVar[str] = "nonconvex-sweep"

    students: tuple[str, ...] = STUDENTS
    linear_problem: Problem = field(default_factory=lambda: SimplexLinear(dimension=4, samples=512))
    mixture_problem: Problem = field(default_factory=lambda: GaussianMixture(dimension=5, samples=512))
    rank: int = 5
    widths: tuple[int, ...] = (16,)
    nu_fractions: tuple[float, ...] = (0.02, 0.1, 0.4)
    factored_largest: float = 6.4
    mlp_largest: float = 1.6
    octaves: int = 7
    per_octave: int = 2
    steps: int = 8_000
    batch_size: int = 1
    dtype: str = "float32"
    checkpoints: int = 36
    tail_fraction: float = 0.4
    replicas: int = 16
    seed: int = 0
    engine: str = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        for name in self.students:
            choose("student", name, dict.fromkeys(STUDENTS))
        require(len(self.students) > 0, "students", self.students, "at least one")
        for fraction in self.nu_fractions:
            require_between("nu_fractions", fraction, 0, 1, "()")
        require_positive("factored_largest", self.factored_largest)
        require_positive("mlp_largest", self.mlp_largest)
        require_count("octaves", self.octaves, least=0)
        require_count("per_octave", self.per_octave)

    def quick(self) -> Self:
        sizes = {"steps": 500, "octaves": 4, "per_octave": 1, "replicas": 6, "checkpoints": 24}
        pools: dict[str, Any] = {
            "linear_problem": replace(self.linear_problem, samples=128),
            "mixture_problem": replace(self.mixture_problem, samples=128),
        }
        return replace(self, **{key: min(size, getattr(self, key)) for key, size in sizes.items()}, **pools)

    def cells(self) -> tuple[Cell, ...]:
        cells: list[Cell] = []
        if "factored-least-squares" in self.students:
            cells += self._cells(self.linear_problem, FactoredLeastSquares(self.rank), self.factored_largest)
        if "mlp" in self.students:
            cells += self._cells(self.mixture_problem, MLP(self.widths, "relu"), self.mlp_largest)
        return tuple(cells)

    def _cells(self, problem: Problem, student: NetworkStudent, largest: float) -> list[Cell]:
        first = Cell(
            problem=problem,
            student=student,
            supervision=Exact(),
            step_size=largest,
            sgd=SGD(self.steps, self.batch_size, dtype=self.dtype),  # type: ignore[arg-type]  # SGD refuses others
            recording=Recording(self.checkpoints, self.tail_fraction),
            replicas=self.replicas,
            seed=self.seed,
            engine=self.engine,
            device=self.device,
        )
        grid = [largest * 2 ** (-k / self.per_octave) for k in range(self.octaves * self.per_octave, -1, -1)]
        return [
            replace(first, supervision=supervision, step_size=step_size)
            for supervision in self._supervisions(problem)
            for step_size in grid
        ]

    def _supervisions(self, problem: Problem) -> list[Supervision]:
        p = problem.population(self.seed).p
        largest = OneHot().nu(p)
        return [Exact(), *(Dirichlet().with_nu(f * largest, p) for f in self.nu_fractions), OneHot()]
