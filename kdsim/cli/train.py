"""The commands `kdsim train` and `kdsim distill`: the studies of these names, with options for what one sets most."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any

import typer

from kdsim.cli import completion
from kdsim.cli.options import DataDir, Device, Json, Out, Quick, Repair, Replicas, Rerun, Seed, Set
from kdsim.cli.run import How, load_study, run, settings_of, use_data

Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="D",
        help="cifar10, cifar10h, cifar100 or known-images",
        autocompletion=completion.words("cifar10", "cifar10h", "cifar100", "known-images"),
    ),
]
RecipeName = Annotated[
    str | None,
    typer.Option("--recipe", metavar="R", help="crd, bayesian-kd or plain", autocompletion=completion.names("recipes")),
]
Epochs = Annotated[str | None, typer.Option("--epochs", metavar="N", help="instead of the recipe's")]


def _network(metavar: str, text: str) -> Any:
    """An argument that names a network."""
    return typer.Argument(metavar=metavar, help=text, show_default=False, autocompletion=completion.names("networks"))


def train(
    network: Annotated[str, _network("NETWORK", "for example wrn-16-2, see list networks")],
    data: Data = None,
    data_dir: DataDir = None,
    supervision: Annotated[
        str | None,
        typer.Option(
            "--supervision",
            metavar="S",
            help="see list supervisions; one-hot is the labels",
            autocompletion=completion.names("supervisions", "teachers"),
        ),
    ] = None,
    recipe: RecipeName = None,
    epochs: Epochs = None,
    settings: Set = None,
    out: Out = "results",
    quick: Quick = False,
    replicas: Replicas = None,
    seed: Seed = None,
    device: Device = None,
    repair: Repair = False,
    rerun: Rerun = False,
    as_json: Json = False,
) -> int:
    """Train a network on images: a teacher, or a student alone.

    The study "train": `kdsim show-study train` lists the keys of --set. A run that was interrupted or killed goes on
    from its last checkpoint when the same command is given again.

    \b
    Examples:
      kdsim train resnet8 --data known-images --epochs 3
      kdsim train wrn-16-2 --data-dir my/data --epochs 10 --set data.few_shot=0.2
      kdsim train resnet20 --data cifar10h --data-dir my/data --supervision exact
    """
    use_data(data_dir)
    options = {"data": data, "supervision": supervision, "recipe": recipe, "recipe.epochs": epochs}
    chosen = settings_of(settings, network=network, replicas=replicas, seed=seed, device=device, **options)
    return run(load_study("train", chosen, quick), out, as_json, How(repair=repair, rerun=rerun))


def distill(
    teacher: Annotated[str, _network("TEACHER", "a network, see list networks")],
    student: Annotated[str, _network("STUDENT", "a network, see list networks")],
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss", metavar="L", help="kd, dkd and so on, see list losses", autocompletion=completion.names("losses")
        ),
    ] = None,
    published: Annotated[
        bool, typer.Option("--published", help="the loss's published settings for this pair of networks")
    ] = False,
    data: Data = None,
    data_dir: DataDir = None,
    recipe: RecipeName = None,
    epochs: Epochs = None,
    teacher_epochs: Annotated[
        str | None, typer.Option("--teacher-epochs", metavar="N", help="of the teacher, instead of its recipe's")
    ] = None,
    settings: Set = None,
    out: Out = "results",
    quick: Quick = False,
    replicas: Replicas = None,
    seed: Seed = None,
    device: Device = None,
    repair: Repair = False,
    rerun: Rerun = False,
    as_json: Json = False,
) -> int:
    """Train a teacher on labels, unless it is stored, and a student that learns from it.

    The study "distill": `kdsim show-study distill` lists the keys of --set.
    --recipe and --epochs are the student's; the teacher has teacher_recipe, by
    default crd with its 240 epochs: see --teacher-epochs.

    \b
    Examples:
      kdsim distill wrn-40-2 wrn-16-2 --loss dkd --published --data cifar100 --data-dir my/data --device cuda
      kdsim distill resnet20 resnet8 --data known-images --epochs 4 --teacher-epochs 8 --replicas 3
    """
    use_data(data_dir)
    options = {"data": data, "recipe": recipe, "recipe.epochs": epochs, "teacher_recipe.epochs": teacher_epochs}
    options |= published_settings(teacher, student, loss or "kd") if published else {"loss": loss}
    chosen = settings_of(
        settings, teacher=teacher, student=student, replicas=replicas, seed=seed, device=device, **options
    )
    return run(load_study("distill", chosen, quick), out, as_json, How(repair=repair, rerun=rerun))


def published_settings(teacher: str, student: str, loss: str) -> dict[str, str]:
    """The published settings of a loss for a pair, as texts of `--set`."""
    from kdsim.losses import preset
    from kdsim.study.settings import setting_text

    found = preset(f"{teacher} to {student}", loss)
    fields = {f"loss.{item.name}": setting_text(getattr(found, item.name)) for item in dataclasses.fields(found)}
    return {"loss": found.name, **fields}


def register(app: typer.Typer, panel: str) -> None:
    """Add the commands."""
    app.command("train", short_help="Train a network on images.", rich_help_panel=panel)(train)
    app.command("distill", short_help="Train a network taught by another.", rich_help_panel=panel)(distill)
