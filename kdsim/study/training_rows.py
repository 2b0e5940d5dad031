"""Rows of trainings (`StudentTrainer`): what was run, what the truth says, what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from kdsim.config import digest, kind_of
from kdsim.data import Pools
from kdsim.losses import LTKD, DistillationLoss, Switched
from kdsim.measure.decomposition import columns
from kdsim.measure.floors import interval
from kdsim.measure.teacher_quality import quality
from kdsim.population import Population
from kdsim.scores import negative_log_likelihood
from kdsim.supervision.checks import require_nu
from kdsim.trainer import StudentTrainer, Teacher, teacher_log_probs
from kdsim.training.fitted import FittedTeacher


def student_name(trainer: StudentTrainer) -> str:
    """The network's name, or the student's."""
    return trainer.student.network if trainer.is_network else kind_of(type(trainer.student))


def taught_by(trainer: StudentTrainer) -> str:
    """Supervision or teacher, in one word."""
    return kind_of(type(trainer.supervision))


def loss_name(loss: DistillationLoss) -> str:
    """The loss's kind, and whether it standardises logits; of one that switches, both."""
    if isinstance(loss, Switched):
        return f"{loss_name(loss.first)} then {loss_name(loss.second)}"
    standardised = "-standardised" if getattr(loss, "standardised", False) else ""
    return kind_of(type(loss)) + (_corrections(loss) if isinstance(loss, LTKD) else "") + standardised


def _corrections(loss: LTKD) -> str:
    """Which of the two corrections of LTKD it has, where it has not both."""
    names = {(True, False): "-rebalanced", (False, True): "-equal-groups", (False, False): "-uncorrected"}
    return names.get((loss.rebalance, loss.equal_groups), "")


def settings_text(configuration: Any) -> str:
    """A configuration with all its numbers, in one line."""
    settings = ", ".join(f"{key}={value}" for key, value in vars(configuration).items())
    return f"{kind_of(type(configuration))}({settings})"


def summary(trainer: StudentTrainer) -> dict[str, Any]:
    """What was run, flat."""
    recipe, teacher = trainer.recipe, trainer.teacher
    crop = recipe.augmentation
    truths = (trainer.data.train_truth, trainer.data.test_truth) if trainer.is_network else ("bcp", "bcp")
    augmented = trainer.on_images and truths[0] != "bcp" and (crop.padding > 0 or crop.flip)
    parts = [f"crop {crop.padding} {crop.fill}"] * (crop.padding > 0) + ["flip"] * crop.flip
    return {
        "student": student_name(trainer),
        "data": kind_of(type(trainer.data)),
        "truth": truths[0],
        "test_truth": truths[1],
        "supervision": taught_by(trainer),
        "level": None if teacher else trainer.supervision.level,
        "teacher_cell": digest(teacher) if teacher else None,
        "teacher": student_name(teacher.training) if teacher else None,
        "loss_kind": kind_of(type(trainer.loss)),
        "loss_name": loss_name(trainer.loss),
        "loss_settings": settings_text(trainer.loss),
        "recipe": kind_of(type(recipe)),
        "epochs": recipe.epochs,
        "batch_size": recipe.batch_size,
        "step_size": recipe.step_size,
        "optimiser": kind_of(type(recipe.optimiser)),
        "optimiser_settings": settings_text(recipe.optimiser),
        "schedule": kind_of(type(recipe.schedule)),
        "augmentation": ", ".join(parts) if augmented else "none",
        "precision": trainer.precision,
        "targets": trainer.targets,
        "evaluations": trainer.looks,
        "window": trainer.window,
        "replicas": trainer.replicas,
        "seed": trainer.seed,
        "device": trainer.device,
        **_long_tail(trainer),
        **{f"data.{key}": value for key, value in vars(trainer.data).items() if _plain(value)},
    }


def _long_tail(trainer: StudentTrainer) -> dict[str, float]:
    """imbalance: share of the most over that of the least frequent class in training, where that is by construction."""
    shares = trainer.data.class_shares if trainer.is_network else None
    return {} if shares is None else {"imbalance": max(shares) / min(shares)}


def _plain(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))


def teacher_summary(teacher: Teacher) -> dict[str, Any]:
    """What a teacher is, flat: its kind and settings, and what its networks were trained on."""
    training = teacher.training
    own = {f"teacher.{key}": value for key, value in vars(teacher).items() if _plain(value)}
    trained = {key: value for key, value in summary(training).items() if key not in ("student", "teacher", "replicas")}
    return {
        **trained,
        "teacher": student_name(training),
        "student": None,
        "supervision": kind_of(type(teacher)),
        "teacher_cell": digest(teacher),
        "members": teacher.members,
        "replicas": teacher.count,
        # A loss without a teacher's term looks at the labels of the pool alone.
        "teacher.supervision": taught_by(training) if training.loss.weights[1] else "labels",
        "teacher.level": None if training.teacher else training.supervision.level,
        "teacher.epochs": training.recipe.epochs,
        **own,
    }


def teacher_quality(teacher: Teacher, fitted: FittedTeacher, pools: Pools) -> dict[str, float | None]:
    """Scores of one teacher on the test images as test_NAME and on the validation images as NAME, see `quality`."""
    found = {}
    for prefix, pool, truth in (
        ("test_", pools.test, teacher.training.data.test_truth),
        ("", pools.validation, teacher.training.data.train_truth),
    ):
        log_probs = teacher_log_probs(teacher, fitted, pool)
        found |= {prefix + name: value for name, value in quality(log_probs, pool, truth).items()}
    return found


def over_teachers(found: Sequence[Mapping[str, float | None]]) -> dict[str, Any]:
    """Means over independent teachers with 95 % t-intervals; none for a single one."""
    row: dict[str, Any] = {"diverged": 0}
    for name in found[0]:
        values = [each[name] for each in found]
        if any(value is None for value in values):
            row |= columns(name, None)
        elif len(values) == 1:
            row |= {name: values[0], f"{name}_low": None, f"{name}_high": None}
        else:
            row |= columns(name, interval(torch.tensor(values, dtype=torch.float64)))
    return row


def known(trainer: StudentTrainer) -> dict[str, float | None]:
    """What the truth says before anything is trained; None where nobody knows it.

    nu: mean per-class variance of the supervision over the training images. bayes_loss: loss of p itself on the labels
    of the validation images; bayes_test_loss likewise.
    """
    found: dict[str, float | None] = dict.fromkeys(("nu", "bayes_loss", "bayes_test_loss"))
    if not trainer.is_network:
        return found
    pools = trainer.pools()
    if trainer.data.train_truth != "labels" and trainer.teacher is None:
        found["nu"] = require_nu(trainer.supervision, pools.train)
    if trainer.data.train_truth == "bcp":  # people rule out some labels, whose loss is then infinite
        found["bayes_loss"] = _bayes_loss(pools.validation)
    if trainer.data.test_truth == "bcp":
        found["bayes_test_loss"] = _bayes_loss(pools.test)
    return found


def _bayes_loss(pool: Population) -> float:
    return negative_log_likelihood(pool.p.clamp(min=1e-300).log(), pool.y).item()
