"""What the oracle runs: every study of kdsim, and the commands beside run-study, at sizes of a few seconds each.

Sizes are given with `--set` alone, never with --quick, so that both trees run the same. Linear students of noise-sweep,
bias-sweep and step-size-sweep run in float32 on the engine that `auto` takes, which is what users run; the other
simulations run in float64, most on the engine `torch`, where what is added in another order stays far below the
tolerance. Networks of images train in float32.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Case:
    """One run of a command, and what is read of its results afterwards.

    Attributes:
        study: the study whose rows it gives.
        name: of the case; that of the study, and what is special about it.
        command: the words of the command line before the settings.
        settings: of `--set`.
        then: commands whose rows are compared as well, with the same study, settings and results folder.
    """

    study: str
    name: str
    command: tuple[str, ...]
    settings: tuple[tuple[str, str], ...]
    then: tuple[tuple[str, ...], ...] = ()

    @property
    def writes(self) -> bool:
        """Whether the command has a results folder."""
        return self.command[0] != "predict"

    def arguments(self) -> list[str]:
        """Of the command line, without --out."""
        return [*self.command, *self._set(), "--json"]

    def afterwards(self) -> dict[str, list[str]]:
        """Name of a table to the arguments, without --out, that print it."""
        found = {}
        for words in self.then:
            found[f"{self.name}: {' '.join(words)}"] = [words[0], self.study, *self._set(), *words[1:]]
        return found

    def _set(self) -> list[str]:
        return [word for key, value in self.settings for word in ("--set", f"{key}={value}")]


READ = (("results", "--json"), ("results", "--csv"))


def run(study: str, special: str = "", *, then: tuple[tuple[str, ...], ...] = (), **settings: str) -> Case:
    """A run of a study; `__` in the name of a setting stands for a dot."""
    name = f"{study} {special}".rstrip()
    return Case(study, name, ("run-study", study), _pairs(settings), then)


def predict(study: str, special: str = "", **settings: str) -> Case:
    """Theory alone."""
    name = f"predict {study} {special}".rstrip()
    return Case(study, name, ("predict", study), _pairs(settings))


def _pairs(settings: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    return tuple((key.replace("__", "."), value) for key, value in settings.items())


EXACT = {"dtype": "float64", "engine": "torch"}
"""Of studies whose sums may be added in another order by a new engine without a difference above the tolerance."""
IMAGES = {
    "data": "known-images",
    "data__problem__samples": "96",
    "data__problem__validation_samples": "40",
    "data__problem__test_samples": "40",
    "data__problem__dimension": "2",
    "data__problem__clutter": "0",
}
TEACHERS = {
    "pairs": "resnet8 to resnet8",
    **IMAGES,
    "recipes": "crd",
    "precision": "float32",
    "epochs": "1",
    "teacher_epochs": "1",
    "samples": "2",
    "replicas": "3",
    "evaluations": "4",
}
TRAINING = {
    **{key: value for key, value in IMAGES.items() if key != "data"},
    "recipe__precision": "float32",
    "evaluations": "4",
    "replicas": "3",
}
PROBLEM = {"problem": "gaussian-mixture", "problem__samples": "512"}

CASES: tuple[Case, ...] = (
    run("noise-sweep", **PROBLEM, levels="2", steps="3000", replicas="16", checkpoints="12", then=READ),
    run("noise-sweep", "least squares", problem="simplex-linear", problem__samples="256", levels="2", steps="2000",
        replicas="16", checkpoints="12", batch_size="2"),
    run("noise-sweep", "digits, frozen, permuted", problem="digits", families="dirichlet", levels="2", steps="300",
        replicas="8", checkpoints="12", batch_size="8", targets="frozen", index="permutation", ridge_kind="ordinary",
        **EXACT),
    run("dimension-sweep", problem__samples="256", classes="2,4", dimension="3,8", entropy="0.2", conditioning="10",
        relaxations="0.5", replicas="8", **EXACT),
    run("bias-sweep", problem__samples="256", temperatures="0.5,2", smoothings="0.1", scales="1", confusions="0.2",
        steps="3000", checkpoints="12", replicas="16"),
    run("frozen-labels", problem__samples="512", sizes="64,256", nu_fractions="0.2", relaxations="0.5",
        replicas="8", **EXACT),
    run("step-size-sweep", **PROBLEM, step_sizes="2", tolerance_levels="2", settle="4", window="4", replicas="16"),
    run("batch-sweep", **PROBLEM, batch_sizes="4,32", step_size_fraction="8", ratio_fraction="4", settle="2",
        window="2", directions="3", replicas="8", **EXACT),
    run("pl-sweep", full__samples="256", deficient__samples="256", softmax__samples="256", t2_fractions="2",
        stability_fractions="0.6", levels="1", max_steps="3000", checkpoints="12", replicas="8", **EXACT),
    run("nonconvex-sweep", linear_problem__samples="128", mixture_problem__samples="128", steps="500", octaves="3",
        per_octave="1", replicas="6", checkpoints="12", dtype="float64"),
    run("paper-synthetic", problem__samples="1500", validation="300", epochs="0.5", replicas="8", checkpoints="12"),
    run("image-noise-sweep", problem__samples="96", problem__validation_samples="40", problem__test_samples="40",
        concentrations="0.5", recipe__epochs="1", recipe__batch_size="32", recipe__precision="float32",
        evaluations="6", replicas="3"),
    run("cifar-distillation", pairs="resnet8 to resnet8", losses="label-cross-entropy,kd,dkd", recipe__epochs="1",
        teacher_recipe__epochs="1", recipe__precision="float32", teacher_recipe__precision="float32", teachers="2",
        evaluations="4", replicas="3", **IMAGES),
    run("teacher-kinds", kinds="deterministic,laplace,ivon", **TEACHERS, then=READ),
    run("guideline", **(TEACHERS | {"kinds": "temperature-scaled,mse,swag"})),
    run("bayesian-losses", **(TEACHERS | {"kinds": "deterministic", "losses": "bayesian-kd,dist"})),
    run("few-shot", **(TEACHERS | {"kinds": "deterministic", "fractions": "0.5,1"})),
    run("temperature", **(TEACHERS | {"kinds": "deterministic", "temperatures": "1,4"})),
    run("posterior-samples", **(TEACHERS | {"counts": "1,2"})),
    run("bnn-ablation", **(TEACHERS | {"hess_inits": "0.5", "weight_decays": "2e-4", "structures": "kron,diag"})),
    run("deviations", "points", parts="paths,points,switch", points__problem__samples="300",
        points__validation_samples="60", points__test_samples="100", recipe__epochs="2", recipe__precision="float32",
        teacher_epochs="1,2", concentrations="1", replicas="3", pairs="resnet8 to resnet8",
        **IMAGES, image_recipe__epochs="1", image_recipe__precision="float32", image_teacher_epochs="1",
        image_replicas="2"),
    run("long-tail", imbalances="10", image_imbalances="10", losses="cross-entropy,kd,ltkd",
        problem__samples="300", validation_samples="60", test_samples="100", recipe__epochs="2", replicas="3",
        images__samples="96", images__validation_samples="40", images__test_samples="40",
        pair="resnet8 to resnet8", image_recipe__epochs="1", recipe__precision="float32",
        image_recipe__precision="float32", evaluations="4", image_replicas="2"),
    Case("train", "train", ("train", "resnet8", "--data", "known-images", "--epochs", "1"), _pairs(TRAINING)),
    Case(
        "distill",
        "distill",
        ("distill", "resnet8", "resnet8", "--loss", "dkd", "--data", "known-images", "--epochs", "1",
         "--teacher-epochs", "1"),
        _pairs(TRAINING | {"teacher_recipe__precision": "float32"}),
    ),
    predict("noise-sweep", "softmax-linear", problem="softmax-linear", ridge_kind="none"),
    predict("bias-sweep"),
    predict("pl-sweep", levels="2"),
)  # fmt: skip
"""Every study of kdsim has a case at least: tests/benchmarks/test_oracle.py."""


def chosen(names: list[str] | None) -> tuple[Case, ...]:
    """The cases of these studies, or all.

    Raises:
        ValueError: a name is that of no study.
    """
    known = tuple(dict.fromkeys(case.study for case in CASES))
    for name in names or ():
        if name not in known:
            raise ValueError(f"--only {name}: must be one of {', '.join(known)}")
    return tuple(case for case in CASES if not names or case.study in names)
