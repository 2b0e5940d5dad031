"""paper-synthetic: the paper's synthetic experiment, with replicas instead of one run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

from kdsim.config import require, require_between, require_count, require_positive
from kdsim.engines import SGD, GradientDescent, Recording
from kdsim.problems import GaussianMixture, Problem
from kdsim.students import MLP
from kdsim.study.base import Cell, Study
from kdsim.supervision import Dirichlet, Exact, OneHot, Supervision

TARGETS: tuple[Literal["frozen", "fresh"], ...] = ("frozen", "fresh")


@dataclass(frozen=True)
class PaperSynthetic(Study):
    """An MLP taught by one-hot labels, exact BCP and Dirichlet estimates of it; validated on labels of fresh points.

    Epochs go through the training points in a new order each time. As published, targets are drawn once for each
    replica and point, and stay ("frozen"); beside that, each noisy supervision has a variant that draws them anew at
    each visit ("fresh"). Exact BCP have no noise, hence no second variant.

    With its defaults, 10 million replica-steps, the study takes some 70 s on two cores, two fifths of them for the
    fresh variants, which `targets=frozen` leaves out.

    Attributes:
        problem: generator of training and validation points together.
        validation: points of the pool that are held out.
        widths: of the MLP's hidden layers.
        initial_scale: see MLP; at 1/sqrt 6 weights start with the variance 1 / (3 fan-in) of PyTorch's Linear, as
            published (the first layer with half of it).
        concentrations: of the Dirichlet estimates.
        targets: of the noisy supervisions: "frozen", "fresh" or both.
        step_size, momentum, batch_size: of SGD.
        epochs: passes over the training points.
        checkpoints, tail_fraction: see Recording; the fluctuation is that of the loss in the tail, at a third of them.
        replicas: independent runs of each cell.
        seed: draws the pool and keys all random numbers.
        engine, device: what runs it; auto takes the fastest engine that can.

    Source: Morad, Shlezinger, Eldar, ICLR 2026 (arXiv 2601.01484), the synthetic experiment.
    """

    name: ClassVar[str] = "paper-synthetic"
    summary: ClassVar[str] = "the paper's MLP on a Gaussian mixture: validation loss under one-hot, exact and noisy BCP"
    figure: ClassVar[str] = "paper-synthetic"

    problem: Problem = field(default_factory=lambda: GaussianMixture(samples=27_000))
    validation: int = 4_500
    widths: tuple[int, ...] = (128, 128)
    initial_scale: float = 6**-0.5
    concentrations: tuple[float, ...] = (5.0, 0.5)
    targets: tuple[Literal["frozen", "fresh"], ...] = TARGETS
    step_size: float = 5e-4
    momentum: float = 0.9
    batch_size: int = 1
    epochs: float = 2.0
    checkpoints: int = 60
    tail_fraction: float = 1 / 3
    replicas: int = 32
    seed: int = 0
    engine: str = "auto"
    device: str = "cpu"

    def __post_init__(self) -> None:
        require_count("validation", self.validation)
        for concentration in self.concentrations:
            require_positive("concentrations", concentration)
        once = len(self.targets) == len(set(self.targets)) > 0
        require(once, "targets", self.targets, "a tuple of frozen, fresh or both")
        require_positive("initial_scale", self.initial_scale)
        require_positive("step_size", self.step_size)
        require_between("momentum", self.momentum, 0, 1, "[)")
        require_count("batch_size", self.batch_size)
        require_positive("epochs", self.epochs)

    def quick(self) -> Self:
        return replace(
            self,
            epochs=min(self.epochs, 0.5),
            replicas=min(self.replicas, 8),
            checkpoints=min(self.checkpoints, 36),
            validation=min(self.validation, 1_500),
        )

    def cells(self) -> tuple[Cell, ...]:
        population = self.problem.population(self.seed)
        require_between("validation", self.validation, 1, population.size - 1)
        training = population.size - self.validation
        sgd = SGD(
            steps=max(1, round(self.epochs * training / self.batch_size)),
            batch_size=self.batch_size,
            index="permutation",
            targets=self.targets[0],
            held_out=self.validation,
            optimiser=GradientDescent(momentum=self.momentum),
        )
        noisy: list[Supervision] = [OneHot(), *map(Dirichlet, sorted(self.concentrations))]
        first = Cell(
            problem=self.problem,
            student=MLP(self.widths, "relu", self.initial_scale),
            supervision=OneHot(),
            step_size=self.step_size,
            sgd=sgd,
            recording=Recording(self.checkpoints, self.tail_fraction),
            replicas=self.replicas,
            seed=self.seed,
            engine=self.engine,
            device=self.device,
        )
        cells = [
            replace(first, supervision=supervision, sgd=replace(sgd, targets=targets))
            for targets in self.targets
            for supervision in (*noisy, Exact())
            if supervision in noisy or targets == self.targets[0]
        ]
        return tuple(cells)
