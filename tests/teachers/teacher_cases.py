"""One small instance of every teacher, for the contract suite. Add yours to `CASES` under its name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from tiny_network import TINY, register

from kdsim.data import KnownImages
from kdsim.engines import IVON
from kdsim.losses import Brier, OutputMSE
from kdsim.problems import Images
from kdsim.teachers import (
    MCMI,
    SWAG,
    DeepEnsemble,
    Deterministic,
    Laplace,
    MCDropout,
    MSELogitsTeacher,
    MSETeacher,
    TemperatureScaled,
    Variational,
)
from kdsim.trainer import ImageNetwork, StudentTrainer, Teacher
from kdsim.training import Recipe

register()
IMAGES = KnownImages(Images(classes=3, samples=96, validation_samples=32, test_samples=32, clutter=0, dimension=2))
BATCH = 16


@dataclass(frozen=True)
class Case:
    """A teacher and what the suite expects of it.

    Attributes:
        teacher: two networks' worth of training or more, so that there are at least two teachers of one configuration.
        samples: S, posterior samples that its predictor gives.
        random: whether the predictor draws random numbers: two teachers of the same networks then differ.
    """

    teacher: Teacher
    samples: int = 1
    random: bool = False


def training(steps: int = 6, **changes: Any) -> StudentTrainer:
    """A training of so many steps of the tests' network, two replicas; changes are fields, those of `recipe` too."""
    recipe = Recipe(epochs=steps * BATCH / IMAGES.problem.samples, batch_size=BATCH, precision="float32")
    inner = {name: changes.pop(name) for name in list(changes) if name in Recipe.__dataclass_fields__}
    plain = StudentTrainer(ImageNetwork(TINY), IMAGES, recipe=replace(recipe, **inner), replicas=2, evaluations=2)
    return replace(plain, **changes)


CASES: dict[str, Callable[[], Case]] = {
    "deterministic": lambda: Case(Deterministic(training())),
    "temperature-scaled": lambda: Case(TemperatureScaled(training())),
    "mse": lambda: Case(MSETeacher(training(loss=Brier()))),
    "mse-logits": lambda: Case(MSELogitsTeacher(training(loss=OutputMSE()))),
    "deep-ensemble": lambda: Case(DeepEnsemble(training(replicas=4), size=2), samples=2),
    "laplace": lambda: Case(Laplace(training(), predictive="monte-carlo", samples=4), samples=4, random=True),
    "variational": lambda: Case(Variational(training(optimiser=IVON()), samples=3), samples=3, random=True),
    "mc-dropout": lambda: Case(
        MCDropout(training(student=ImageNetwork(TINY, dropout=0.3)), samples=4), samples=4, random=True
    ),
    "swag": lambda: Case(
        SWAG(training(), samples=3, epochs=0.5, collect_every=1 / 6, rank=2, statistics_images=40), samples=3
    ),
    "mcmi": lambda: Case(MCMI(training(), epochs=0.5, step_size=0.01)),
}
"""By the teacher's name."""
