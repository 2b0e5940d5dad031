"""What tells experiments apart."""

from __future__ import annotations

from typing import Any

from kdsim.api.labels import label_columns, varying


def _experiment(supervision: dict[str, Any], loss: str = "kd", **settings: Any) -> dict[str, Any]:
    return {"class": "student-trainer", "supervision": supervision, "loss": {"class": loss}, "epochs": 2, **settings}


TEACHER = {"class": "ensemble", "training": {"class": "student-trainer", "epochs": 2}, "members": 3}
NOISES = [{"class": "dirichlet", "concentration": 3.0}, {"class": "dirichlet", "concentration": 4.0}]


def test_settings_of_a_class_that_others_are_not_tell_nothing() -> None:
    assert list(varying([_experiment(TEACHER), _experiment(NOISES[0])])) == ["supervision"]
    assert varying([_experiment(TEACHER), *map(_experiment, NOISES)]) == {
        "supervision": ["ensemble", "dirichlet", "dirichlet"],
        "supervision.concentration": [None, 3.0, 4.0],
    }
    assert list(varying([TEACHER, NOISES[0]])) == ["kind"]


def test_a_measured_column_is_no_setting() -> None:
    """`loss` is a number of a row, and a part of a configuration."""
    rows = [{"loss": 0.5, "loss_kind": kind, "supervision": "dirichlet", "level": 3.0} for kind in ("kd", "dkd")]
    table = label_columns(rows, [_experiment(NOISES[0], kind) for kind in ("kd", "dkd")])
    assert table.to_dict("list") == {"label": ["kd", "dkd"], "loss_kind": ["kd", "dkd"]}
    bare = label_columns([{"loss": 0.5}, {"loss": 0.6}], [_experiment(NOISES[0], kind) for kind in ("kd", "dkd")])
    assert list(bare) == ["label", "loss_setting"]


def test_the_level_stands_beside_its_supervision() -> None:
    rows = [{"supervision": "dirichlet", "level": noise["concentration"], "seed": 0} for noise in NOISES]
    rows.append({"supervision": "exact", "level": None, "seed": 1})
    configurations = [*(_experiment(noise, seed=0) for noise in NOISES), _experiment({"class": "exact"}, seed=1)]
    table = label_columns(rows, configurations)
    assert list(table) == ["label", "supervision", "level", "seed"]
    assert table["label"].tolist() == ["dirichlet 3, seed 0", "dirichlet 4, seed 0", "exact, seed 1"]
    alone = label_columns(rows[:2], configurations[:2])
    assert alone["label"].tolist() == ["level 3", "level 4"]
    own = [{"label": "ensemble", "loss_label": f"kd T {t}", "supervision": "ensemble", "epochs": t} for t in (1, 2)]
    named = label_columns(own, [_experiment(TEACHER, epochs=t) for t in (1, 2)])
    assert named["label"].tolist() == ["ensemble, epochs 1", "ensemble, epochs 2"]
