"""Rows of trainings (`StudentTrainer`): what was run, what the truth says, what was measured."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from kdsim.config import ConfigError, digest, kind_of, require
from kdsim.data import Pools
from kdsim.losses import LTKD, DistillationLoss, Switched
from kdsim.measure.decomposition import columns
from kdsim.measure.floors import interval
from kdsim.measure.teacher_quality import quality
from kdsim.population import Population
from kdsim.scores import negative_log_likelihood
from kdsim.study.rows import json_ready
from kdsim.supervision.checks import require_nu
from kdsim.trainer import StudentTrainer, Teacher, teacher_log_probs
from kdsim.training.fitted import FittedTeacher

TRAINING, TEACHER = "training", "teacher"
"""Under `kind` in cell.json and in rows."""


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


def training_row(study: str, cell: str, content: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a stored training or teacher, from the content of its cell.json.

    Raises:
        ConfigError: the content lacks something that a row has.
    """
    wanted = {TRAINING: ("student", "data", "supervision", "replicas"), TEACHER: ("teacher", "data", "replicas")}
    for part, keys in (("summary", wanted[content["kind"]]), ("measurement", ("diverged",))):
        if missing := [key for key in keys if key not in content[part]]:
            raise ConfigError(f"{part} has no {', '.join(missing)}")
    for name, value in content["measurement"].items():
        number = isinstance(value, (int, float)) and abs(value) <= sys.float_info.max
        require(number or value is None, f"measurement: {name}", value, "a number")
    return json_ready(
        {
            "study": study,
            "cell": cell,
            "kind": content["kind"],
            **content["summary"],
            **content["prediction"],
            **content["measurement"],
        }
    )


# Names that tell rows apart ---------------------------------------------------------------------


def labelled(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a study with names for people; rows of simulations are left as they are.

    label: supervision or kind of teacher, with the settings in which the study's teachers of this kind differ.
    loss_label: the loss, with the settings in which the study's losses of this name differ.
    """
    teachers = [row for row in rows if row.get("kind") == TEACHER]
    names = {row["cell"]: ", ".join([row["supervision"], *_differing(row, teachers)]) for row in teachers}
    found = []
    for row in rows:
        if row.get("kind") in (TRAINING, TEACHER):
            label = names.get(row["teacher_cell"], row["supervision"])
            row = {**row, "label": label, "loss_label": _loss_label(row, rows)}
        found.append(row)
    return found


def _differing(row: Mapping[str, Any], teachers: Sequence[Mapping[str, Any]]) -> list[str]:
    """Settings of a teacher in which those of its kind differ."""
    alike = [other for other in teachers if all(other[key] == row[key] for key in ("supervision", "data"))]
    found = []
    for key in (*(key for key in row if key.startswith("teacher.")), "optimiser"):
        if len({str(other.get(key)) for other in alike}) > 1 and row[key] is not None:
            value = f"{row[key]:g}" if isinstance(row[key], float) else row[key]
            speaks = key in ("optimiser", "teacher.supervision")  # the value says what it is of
            found.append(value if speaks else f"{key.removeprefix('teacher.')} {value}")
    same_rule = [other["optimiser_settings"] for other in alike if other["optimiser"] == row["optimiser"]]
    return found + _differing_parts(row["optimiser_settings"], same_rule)


def _loss_label(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    others = [other["loss_settings"] for other in rows if other.get("loss_name") == row["loss_name"]]
    return " ".join([row["loss_name"], *_differing_parts(row["loss_settings"], others)])


def _differing_parts(settings: str, others: Sequence[str]) -> list[str]:
    """Of what `settings_text` wrote, the parts that are not the same in all others."""
    own, rest = _parts(settings), [_parts(other) for other in others]
    return [f"{name.replace('_', ' ')} {own[name]}" for name in own if any(o.get(name) != own[name] for o in rest)]


def _parts(settings: str) -> dict[str, str]:
    inside = settings.partition("(")[2].removesuffix(")")
    return dict(item.split("=", 1) for item in inside.split(", ") if "=" in item)
