"""Teachers by the name of their kind, from one base training: what the studies compare."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from kdsim.config import choose
from kdsim.engines.variational import IVON, MeanField
from kdsim.losses import Brier, OutputMSE
from kdsim.teachers.deterministic import Deterministic
from kdsim.teachers.ensemble import DeepEnsemble
from kdsim.teachers.laplace import Laplace
from kdsim.teachers.mc_dropout import MCDropout
from kdsim.teachers.mcmi import MCMI
from kdsim.teachers.mse import MSELogitsTeacher, MSETeacher
from kdsim.teachers.swag import SWAG
from kdsim.teachers.temperature_scaled import TemperatureScaled
from kdsim.teachers.variational import Variational
from kdsim.trainer import StudentTrainer, Teacher
from kdsim.training import Recipe

IVON_STEP_SIZE = 0.2
"""Of Shen et al. (2024) for residual networks on CIFAR; the schedule is the base recipe's."""
IVON_IMAGES = 50_000
"""Images with which their `hess_init` was chosen: those of CIFAR."""
DROPOUT = 0.2
CONTINUED = 1 / 3
"""Epochs for which SWAG and MCMI go on, over those of the base training."""


def teacher_of(kind: str, training: StudentTrainer, samples: int = 4) -> Teacher:
    """The teacher of that kind on a base training, which is changed where the kind asks for it.

    Args:
        kind: a key of `KINDS`.
        training: of a deterministic teacher; its replicas are the number of independent teachers.
        samples: S of the kinds that draw samples, and the size of an ensemble.

    Raises:
        ConfigError: there is no such kind, or the training cannot be that of this kind.
    """
    return choose("kind of teacher", kind, KINDS)(training, samples)


def _ivon(training: StudentTrainer, samples: int) -> Teacher:
    recipe = replace(_plain(training.recipe), step_size=IVON_STEP_SIZE, optimiser=IVON(hess_init_ess=IVON_IMAGES))
    return Variational(replace(training, recipe=recipe), samples)


def _mean_field(training: StudentTrainer, samples: int) -> Teacher:
    recipe = replace(_plain(training.recipe), step_size=1e-3, optimiser=MeanField())
    return Variational(replace(training, recipe=recipe), samples)


def _plain(recipe: Recipe) -> Recipe:
    """The recipe under the name that promises nothing about its optimiser."""
    return Recipe(**vars(recipe))


def _classes(training: StudentTrainer) -> int:
    """K. The squared errors are means over K classes; the weights give them the gradient of a cross-entropy.

    That of the Brier score in the logits is 2 / K^2 of the cross-entropy's where all classes are equally probable, that
    of the outputs' 2 / K: under a recipe made for the cross-entropy a network would hardly learn.
    """
    return training.data.classes


def _swag(training: StudentTrainer, samples: int) -> Teacher:
    epochs = max(2.0, CONTINUED * training.recipe.epochs)
    return SWAG(training, samples, epochs=epochs, collect_every=min(1.0, epochs / 8))


def _dropout(training: StudentTrainer, samples: int) -> Teacher:
    return MCDropout(replace(training, student=replace(training.student, dropout=DROPOUT)), samples)


KINDS: dict[str, Callable[[StudentTrainer, int], Teacher]] = {
    "deterministic": lambda training, samples: Deterministic(training),
    "mse": lambda training, samples: MSETeacher(replace(training, loss=Brier(_classes(training) ** 2 / 2))),
    "mse-logits": lambda training, samples: MSELogitsTeacher(replace(training, loss=OutputMSE(_classes(training) / 2))),
    "mcmi": lambda training, samples: MCMI(training, epochs=CONTINUED * training.recipe.epochs),
    "temperature-scaled": lambda training, samples: TemperatureScaled(training),
    "laplace": lambda training, samples: Laplace(training),
    "ivon": _ivon,
    "mean-field": _mean_field,
    "mc-dropout": _dropout,
    "swag": _swag,
    "deep-ensemble": lambda training, samples: DeepEnsemble(
        replace(training, replicas=training.replicas * samples), samples
    ),
}
"""Kind -> function of base training and number of samples."""
