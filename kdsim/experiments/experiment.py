"""`Experiment`: one training, from its parts."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

from kdsim.config import ConfigError, by_name, choose, kind_of, require, shown
from kdsim.config.allowed import allowed_text
from kdsim.data import ImageSource, KnownImages, KnownPoints, PointSource
from kdsim.engines.base import SGD
from kdsim.engines.optimisers import Optimiser
from kdsim.engines.recorder import Recording
from kdsim.engines.schedules import Schedule
from kdsim.losses import DistillationLoss
from kdsim.networks import NETWORKS, POINT_NETWORKS
from kdsim.problems import Images, Problem
from kdsim.students import NETWORK_STUDENTS, STUDENTS, LinearStudent, NetworkStudent
from kdsim.studies.common import step_size_within_t1
from kdsim.study.base import Cell
from kdsim.study.packs import pool
from kdsim.supervision import OneHot, Supervision
from kdsim.threads import one_thread
from kdsim.trainer import StudentTrainer, Teacher
from kdsim.training.recipe import Recipe
from kdsim.training.students import ImageNetwork, PointNetwork

Student = LinearStudent | NetworkStudent | ImageNetwork | PointNetwork
Data = Problem | ImageSource | PointSource

STEP_SIZE_FRACTION = 0.6
"""Of the limit of the bound T1: the step size of a linear student if none is given."""


def Experiment(
    data: Data,
    student: Student | str | None = None,
    supervision: Supervision | Teacher | None = None,
    loss: DistillationLoss | None = None,
    recipe: Recipe | SGD | None = None,
    recording: Recording | None = None,
    *,
    step_size: float | None = None,
    steps: int | None = None,
    epochs: float | None = None,
    batch_size: int | None = None,
    targets: Literal["fresh", "frozen"] | None = None,
    optimiser: Optimiser | None = None,
    schedule: Schedule | None = None,
    replicas: int | None = None,
    seed: int = 0,
    engine: str = "auto",
    device: str = "cpu",
) -> Cell | StudentTrainer:
    """Describe one training: what data, which student, taught by what, and how.

    A problem with a student of the engines is trained for `steps`, with a step size that is absolute; thousands of
    replicas run side by side, and theory predicts them (`kdsim.predict`). A network, a teacher, a loss of distillation
    or a `Recipe` makes a training of `epochs`.

    Args:
        data: a problem, or a source of images or points (`kdsim.data`). With a network, a problem stands for points or
            images that are drawn from it and split.
        student: a configuration, or its name; None: the linear student that can be the problem's class probabilities.
        supervision: a noise model or a teacher; None: one-hot labels.
        loss: of a network; None: cross-entropy against the target. A student of the engines has its own.
        recipe: how the student is trained, as an `SGD` (steps) or a `Recipe` (epochs); what is given beside it, as
            `batch_size`, replaces its own.
        recording: when replicas on the engines are looked at.
        step_size: alpha; None: of a recipe its own, of a linear student 0.6 of the limit of the bound T1 on this
            problem.
        steps, epochs: length of the training.
        batch_size: samples a step.
        targets: "fresh" (drawn at each visit) or "frozen" (drawn once); None: fresh for steps, frozen for epochs.
        optimiser, schedule: None: plain SGD at a constant step size.
        replicas: independent runs; None: 64 on the engines, 1 of a network.
        seed: draws the data and keys all random numbers.
        engine: of a problem, "auto" or a name of `kdsim.engines`.
        device: "cpu", "cuda" or "cuda:1".

    Raises:
        ConfigError: a value is not allowed, or does not belong to this kind of training.

    Example:
        >>> import kdsim as kd
        >>> experiment = kd.Experiment(
        ...     kd.problems.SoftmaxLinear(dimension=3, samples=100), supervision=kd.supervision.Dirichlet(3.0),
        ...     steps=1_000, step_size=0.1, replicas=8,
        ... )
        >>> experiment.supervision.concentration, experiment.sgd.steps
        (3.0, 1000)
    """
    require(isinstance(data, (Problem, ImageSource, PointSource)), "data", data, allowed_text(Data, data))
    found: Any = _student(data, student)
    data = _split(data, found)
    shared: dict[str, Any] = {"batch_size": batch_size, "optimiser": optimiser, "schedule": schedule}
    of_epochs = isinstance(recipe, Recipe) or loss is not None or epochs is not None
    if isinstance(data, Problem) and not isinstance(supervision, Teacher) and not of_epochs:
        require(recipe is None or isinstance(recipe, SGD), "recipe", recipe, "an SGD or a Recipe")
        sgd = _with(recipe or SGD(), steps=steps, targets=targets, **shared)
        cell = Cell(
            problem=data,
            student=found,
            supervision=OneHot() if supervision is None else supervision,
            step_size=1.0 if step_size is None else step_size,
            sgd=sgd,
            recording=Recording() if recording is None else recording,
            replicas=Cell.replicas if replicas is None else replicas,
            seed=seed,
            engine=engine,
            device=device,
        )
        return cell if step_size is not None else replace(cell, step_size=_step_size(cell))
    _refuse(steps, "steps", "a training of epochs: give epochs")
    _refuse(recording, "recording", "a training of epochs, which looks at the validation points (evaluations)")
    _refuse(None if engine == "auto" else engine, "engine", "a training of epochs, which finds its own")
    require(recipe is None or isinstance(recipe, Recipe), "recipe", recipe, "a Recipe, for a training of epochs")
    given: dict[str, Any] = {"supervision": supervision, "loss": loss, "targets": targets, "replicas": replicas}
    return StudentTrainer(
        student=found,
        data=data,
        recipe=_with(recipe or Recipe(), epochs=epochs, step_size=step_size, **shared),
        seed=seed,
        device=device,
        **{key: value for key, value in given.items() if value is not None},
    )


def _student(data: Data, student: Student | str | None) -> Student:
    """The student that is meant, on these data."""
    engines: dict[str, Any] = by_name((*STUDENTS, *NETWORK_STUDENTS))
    if student is None:
        if isinstance(data, Images) or not isinstance(data, Problem):
            names = POINT_NETWORKS if isinstance(data, PointSource) else NETWORKS
            known = ", ".join(names)
            raise ConfigError(f"student = None is not allowed with {kind_of(type(data))}: must be one of {known}")
        student = data.student
    if not isinstance(student, str):
        return student
    if isinstance(data, (ImageSource, Images)):
        return ImageNetwork(student)
    if isinstance(data, PointSource):
        return PointNetwork(student)
    return choose("student", student, engines)()


def _split(data: Data, student: Student) -> Data:
    """The problem as images or points that are split, where the student is a network."""
    if isinstance(data, Images):
        return KnownImages(data)
    if isinstance(data, Problem) and isinstance(student, PointNetwork):
        return KnownPoints(data)
    return data


def _with(recipe: Any, **given: Any) -> Any:
    return replace(recipe, **{key: value for key, value in given.items() if value is not None})


def _refuse(value: Any, what: str, why: str) -> None:
    if value is not None:
        raise ConfigError(f"{what} = {shown(value)} is not allowed for {why}")


def _step_size(cell: Cell) -> float:
    """Of a linear student; another one has no limit from which it would follow."""
    if not isinstance(cell.student, LinearStudent):
        student = kind_of(type(cell.student))
        raise ConfigError(f"step_size = None is not allowed with the student {student}: must be a finite number > 0")
    with one_thread():
        return step_size_within_t1(cell.student, pool(cell), cell.sgd.batch_size, STEP_SIZE_FRACTION)
