"""What was run: the settings of an experiment, and what a stored row says of its origin."""

from __future__ import annotations

from kdsim.results.schema import Column, Kind, Type

ALL: tuple[Kind, ...] = ("simulation", "training", "teacher", "computation")
TRAINED: tuple[Kind, ...] = ("training", "teacher")
BOTH: tuple[Kind, ...] = ("simulation", "training", "teacher")
SIMULATED: tuple[Kind, ...] = ("simulation",)


def _set(name: str, type_: Type, unit: str, meaning: str, kinds: tuple[Kind, ...], heading: str = "") -> Column:
    """A setting; every simulation has those that simulations have."""
    always = "simulation" in kinds and "{" not in name
    return Column(name, type_, unit, meaning, "experiment", kinds, heading=heading, always=always)


def _origin(name: str, meaning: str, kinds: tuple[Kind, ...] = ALL) -> Column:
    return Column(name, "str", "", meaning, "provenance", kinds)


COLUMNS = (
    _origin("study", "name of the study that the row is of"),
    _origin("cell", "digest of the cell's whole configuration: its results lie under it"),
    _origin("kind", "training, teacher or computation; a simulation has none"),
    _set("problem", "str", "", "kind of the problem", SIMULATED),
    _set("data", "str", "", "kind of the data", TRAINED),
    _set("student", "str", "", "kind of the student, or name of its network", BOTH),
    _set("ridge", "float", "", "lambda of the student's ridge", SIMULATED),
    _set("ridge_kind", "str", "", "centred (about theta*), ordinary (about zero) or none", SIMULATED),
    _set("truth", "str", "", "what p is on training and validation images: bcp, people or labels", TRAINED),
    _set("test_truth", "str", "", "likewise on test images", TRAINED),
    _set("supervision", "str", "", "kind of the supervision, or of the teacher", BOTH),
    _set("level", "float", "", "the supervision's own parameter: annotators, concentration, variance, ...", BOTH),
    _set("teacher_cell", "str", "", "digest of the teacher", TRAINED),
    _set("teacher", "str", "", "network of the teacher", TRAINED),
    _set("loss_kind", "str", "", "kind of the loss", TRAINED),
    _set("loss_name", "str", "", "the loss with what it does to logits", TRAINED),
    _set("loss_settings", "str", "", "the loss with all its numbers", TRAINED),
    _set("recipe", "str", "", "kind of the recipe", TRAINED),
    _set("epochs", "float", "epochs", "length of the training", TRAINED),
    _set("step_size", "float", "", "alpha, absolute; of a schedule the largest", BOTH),
    _set("batch_size", "int", "samples", "samples a step, b", BOTH),
    _set("index", "str", "", "how points are visited: replacement or permutation", SIMULATED),
    _set("targets", "str", "", "fresh (drawn at each visit) or frozen (drawn once a point and replica)", BOTH),
    _set("training_set", "int", "points", "pool points that a replica sees; none: all", SIMULATED),
    _set("held_out", "int", "points", "points that no replica visits: the validation set", SIMULATED),
    _set("dtype", "str", "", "number format of the engine", SIMULATED),
    _set("optimiser", "str", "", "kind of the optimiser", BOTH),
    _set("optimiser_settings", "str", "", "the optimiser with all its numbers", TRAINED),
    _set("schedule", "str", "", "kind of the schedule of the step size", BOTH),
    _set("augmentation", "str", "", "crops and flips of training images", TRAINED),
    _set("precision", "str", "", "number format of convolutions and products: float32 or bfloat16", TRAINED),
    _set("evaluations", "int", "", "evaluations on the validation images", TRAINED),
    _set("window", "float", "", "last part of the run in which floor and noise are taken", TRAINED),
    _set("imbalance", "float", "", "share of the most over that of the least frequent class in training", TRAINED),
    _set("members", "int", "", "networks that one teacher is made of", ("teacher",)),
    _set("problem.{setting}", "any", "", "a parameter of the problem", SIMULATED),
    _set("data.{setting}", "any", "", "a parameter of the data", TRAINED),
    _set("teacher.supervision", "str", "", "what the teacher's networks learned from", ("teacher",)),
    _set("teacher.level", "float", "", "the parameter of that supervision", ("teacher",)),
    _set("teacher.epochs", "float", "epochs", "length of the training, or of the fit, of the teacher", ("teacher",)),
    _set("teacher.{setting}", "any", "", "a parameter of the teacher", ("teacher",)),
    _set("steps", "int", "steps", "steps of SGD of each replica", ("simulation", "training")),
    _set("train_size", "int", "samples", "training images or points", ("training",)),
    _set("tail_start", "int", "steps", "the tail, over which floors are taken, begins after this step", SIMULATED),
    _set("replicas", "int", "", "independent runs R; of a teacher, independent teachers", BOTH),
    _set("seed", "int", "", "draws the data and keys all random numbers", BOTH),
    _set("engine", "str", "", "what ran the simulation", SIMULATED),
    _set("device", "str", "", "where it ran: cpu, cuda, ...", BOTH),
    _origin("source", "first digits of the digest of kdsim's source that computed the row; empty if not known"),
    Column("label", "str", "", "supervision or teacher, told apart from others of its kind", "provenance", TRAINED),
    Column("loss_label", "str", "", "the loss, told apart from others of its kind", "provenance", TRAINED),
)
