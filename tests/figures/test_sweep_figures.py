"""Figures of simulations: every labelled mark stands for the numbers of its column, with the ends of its interval."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from drawn import bars, curves, draw, legend, panel, plain_lines, results, shows_band, shows_bars, shows_line, table

from kdsim.figures import style

SHARED: dict[str, Any] = {
    "problem": "softmax-linear", "student": "softmax-regression", "ridge": 0.1, "ridge_kind": "centred",
    "batch_size": 1, "steps": 1000, "replicas": 8, "seed": 0, "diverged": 0, "stationary": True,
    "targets": "fresh", "bound_valid": True, "sharp_bound_valid": True, "stability_kind": "linearised",
}  # fmt: skip
STEPS = [0, 10, 100, 1000]
FLOORS = ("first_order_floor", "second_order_floor", "bound_floor", "sharp_bound_floor")


def family(rows: pd.DataFrame, name: str, order: str = "nu") -> pd.DataFrame:
    """The rows of one supervision."""
    return rows[rows["supervision"] == name].sort_values(order)


def noisy(*families: str, levels: int = 3) -> list[dict[str, Any]]:
    """Cells of exact BCP and of families at several levels, each with another nu."""
    nus = [{"supervision": name, "nu": 0.01 * 2**level * (1 + place / 7), "level": float(level + 1)}
           for place, name in enumerate(families) for level in range(levels)]  # fmt: skip
    return [{"supervision": "exact", "nu": 0.0, "level": None}, *nus]


def test_noise_sweep() -> None:
    columns = (*FLOORS, "exact_floor", "step_size")
    rows = table(noisy("one-hot", "dirichlet", "annotators"), ("floor", "fluctuation"), columns, **SHARED)
    tables = curves(rows["cell"], ("dist_sq_mean", "dist_sq_q05", "dist_sq_q95", "bound"), step=STEPS)
    figure = draw("noise-sweep", results(rows, curves=tables))
    looks = legend(figure)
    assert set(looks) == {"exact", "one-hot", "dirichlet", "annotators", "exact floor", "T1 bound", "T1' bound"}
    floor, fluctuation, ratio = (panel(figure, words) for words in ("(b)", "(c)", "measured /"))
    for name in ("one-hot", "dirichlet", "annotators"):
        own = family(rows, name)
        assert shows_bars(floor, looks[name], own, "nu", "floor") == 3
        assert shows_bars(fluctuation, looks[name], own, "nu", "fluctuation") == 3
        assert shows_bars(ratio, looks[name], own, "nu", "floor", scale=own["exact_floor"]) == 3
        for label, column in (("exact floor", "exact_floor"), ("T1 bound", "bound_floor"),
                              ("T1' bound", "sharp_bound_floor")):  # fmt: skip
            shows_line(floor, None, own["nu"], own[column], color=looks[name].color, line=looks[label].line)
    learning = panel(figure, "(a)")
    drawn = pd.concat([family(rows, "exact"), family(rows, "one-hot"), family(rows, "dirichlet").iloc[[0, 1]]])
    for row in drawn.itertuples():
        curve = tables[(tables["cell"] == row.cell) & (tables["step"] > 0)]
        color = looks[row.supervision].color
        shows_line(learning, None, curve["step"], curve["dist_sq_mean"], color=color, line="-")
        shows_line(learning, None, curve["step"], curve["bound"], color=color, line=looks["T1 bound"].line)
        shows_band(learning, color, curve["step"], curve["dist_sq_q05"], curve["dist_sq_q95"])
    assert len(plain_lines(learning)) == 2 * len(drawn)


def test_noise_sweep_without_an_exact_floor() -> None:
    rows = table(noisy("one-hot"), ("floor", "fluctuation"), (*FLOORS, "step_size"), exact_floor=None, **SHARED)
    tables = curves(rows["cell"], ("dist_sq_mean", "dist_sq_q05", "dist_sq_q95", "bound"), step=STEPS)
    figure = draw("noise-sweep", results(rows, curves=tables))
    own, looks = family(rows, "one-hot"), legend(figure)
    line = looks["first-order floor"].line
    shows_line(panel(figure, "(b)"), None, own["nu"], own["first_order_floor"], color=looks["one-hot"].color, line=line)
    shows_bars(panel(figure, "measured /"), looks["one-hot"], own, "nu", "floor", scale=own["first_order_floor"])


def test_dimension_sweep() -> None:
    base = {"classes": 5, "dimension": 20, "conditioning": 2.0, "entropy": 0.5 * np.log(5)}
    varied = [base, base | {"classes": 3, "entropy": 0.5 * np.log(3)}, base | {"dimension": 40},
              base | {"conditioning": 8.0}, base | {"entropy": 0.8 * np.log(5)}]  # fmt: skip
    cells = [{f"problem.{key}": value for key, value in problem.items()} | {"supervision": name}
             for problem in varied for name in ("one-hot", "dirichlet")]  # fmt: skip
    shared = SHARED | {"batch_size": 4}
    rows = table(cells, ("floor",), ("first_order_floor", "bound_floor", "step_size"), **shared)
    figure = draw("dimension-sweep", results(rows, {"problem": base}))
    looks = legend(figure)
    rows["share"] = (rows["problem.entropy"] / np.log(rows["problem.classes"])).round(9)
    names = {"classes": "problem.classes", "dimension": "problem.dimension", "entropy": "share",
             "conditioning": "problem.conditioning"}  # fmt: skip
    for words, place in (("(a)", 1), ("(b)", 2), ("(c)", 4), ("(d)", 3)):
        key = {1: "classes", 2: "dimension", 4: "entropy", 3: "conditioning"}[place]
        ax = panel(figure, words)
        for number, name in enumerate(("one-hot", "dirichlet")):
            own = rows.iloc[[number, 2 * place + number]].sort_values(names[key])
            unit = own["step_size"] / 4
            assert shows_bars(ax, looks[name], own, names[key], "floor", scale=unit) == 2
            for label, column in (("first-order floor", "first_order_floor"), ("T1 bound", "bound_floor")):
                y = own[column] / unit
                shows_line(ax, None, own[names[key]], y, color=looks[name].color, line=looks[label].line)


@pytest.mark.slow
def test_bias_sweep() -> None:
    levels = {"temperature": (0.5, 2.0, 4.0), "label-smoothing": (0.1, 0.2), "logit-gaussian": (0.5, 1.0),
              "confusion": (0.1, 0.2)}  # fmt: skip
    cells = [{"supervision": "exact", "level": None, "nu": 0.0}]
    cells += [{"supervision": name, "level": level, "nu": 0.0} for name, own in levels.items() for level in own]
    cells += [{"supervision": "confusion", "level": level, "nu": 0.1} for level in (0.1, 0.2)]
    measured = ("floor", "mean_dist_sq", "measured_variance", "measured_cross_term", "accuracy")
    columns = ("first_order_floor", "predicted_mean_dist_sq", "variance", "cross_term", "bias_sq", "bcp_l2")
    rows = table(cells, measured, (*columns, "step_size"), **SHARED)
    rows.loc[5, ["measured_cross_term", "measured_cross_term_low", "measured_cross_term_high"]] = [-0.4, -0.5, -0.1]
    figure = draw("bias-sweep", results(rows))
    looks = legend(figure)
    parts = {"floor": ("floor", "first_order_floor"), r"$|\mathrm{E}\theta-\theta_*|^2$": ("mean_dist_sq",
             "predicted_mean_dist_sq"), "variance": ("measured_variance", "variance"),
             "|cross term|": ("measured_cross_term", "cross_term")}  # fmt: skip
    names = (("(a)", "temperature", 0), ("(b)", "label-smoothing", 0), ("(c)", "logit-gaussian", 0),
             ("(d)", "confusion", 0), ("(e)", "confusion", 0.1))  # fmt: skip
    for words, name, nu in names:
        ax, own = panel(figure, words), family(rows[rows["nu"] == nu], name, "level")
        for label, (column, predicted) in parts.items():
            shown = own.copy()
            if column == "measured_cross_term":  # by its size, the ends likewise
                signs = np.sign(shown[column])
                low, high = shown[f"{column}_low"].copy(), shown[f"{column}_high"].copy()
                shown[column] = shown[column].abs()
                shown[f"{column}_low"], shown[f"{column}_high"] = (
                    low.where(signs > 0, -high),
                    high.where(signs > 0, -low),
                )
            shows_bars(ax, looks[label], shown, "level", column)
            sides = [own[own["level"] < 1], own[own["level"] > 1]] if name == "temperature" else [own]
            for side in sides:
                shows_line(ax, None, side["level"], side[predicted].abs(), color=looks[label].color, line="-")
        bias = looks[r"bias $|\theta_m-\theta_*|^2$"]
        for side in sides:
            shows_line(ax, None, side["level"], side["bias_sq"], color=bias.color, line=bias.line)
    cost = panel(figure, "(f)")
    best = rows["accuracy"][0]
    for label, name, nu in (("temperature", "temperature", 0), ("label smoothing", "label-smoothing", 0),
                            ("logit-Gaussian", "logit-gaussian", 0), ("confusion, $q = Ap$", "confusion", 0),
                            ("confusion, labels from $Ap$", "confusion", 0.1)):  # fmt: skip
        own = family(rows[rows["nu"] == nu], name, "level")
        handle = next(c for c in cost.containers if c.get_label() == label)
        assert sorted(handle.lines[0].get_ydata()) == pytest.approx(sorted(100 * (best - own["accuracy"])))
        assert sorted(handle.lines[0].get_xdata()) == pytest.approx(sorted(own["bcp_l2"]))


def test_an_interval_that_contains_zero_is_its_upper_end() -> None:
    cells = [{"supervision": "exact", "level": None, "nu": 0.0}]
    cells += [{"supervision": name, "level": 2.0, "nu": 0.0}
              for name in ("temperature", "label-smoothing", "logit-gaussian", "confusion")]  # fmt: skip
    measured = ("floor", "mean_dist_sq", "measured_variance", "measured_cross_term", "accuracy")
    columns = ("first_order_floor", "predicted_mean_dist_sq", "variance", "cross_term", "bias_sq", "bcp_l2")
    rows = table(cells, measured, (*columns, "step_size"), **SHARED)
    rows.loc[1, ["mean_dist_sq", "mean_dist_sq_low", "mean_dist_sq_high"]] = [-0.1, -0.3, 0.2]
    rows.loc[1, ["measured_cross_term", "measured_cross_term_low", "measured_cross_term_high"]] = [-0.1, -0.3, 0.1]
    figure = draw("bias-sweep", results(rows))
    ax, looks = panel(figure, "(a)"), legend(figure)
    for label, upper in ((r"$|\mathrm{E}\theta-\theta_*|^2$", 0.2), ("|cross term|", 0.3)):
        shows_line(ax, None, [2.0], [upper], color=looks[label].color, marker="_")
        assert not [points for each, points in bars(ax) if each.color == looks[label].color and len(points)]


@pytest.mark.slow
def test_step_size_sweep() -> None:
    sizes = (0.01, 0.02, 0.04)
    cells = [{"supervision": "exact", "nu": 0.0, "step_size": size, "exact_floor": None} for size in sizes]
    cells += [{"supervision": name, "nu": nu, "step_size": size, "sharp_bound_valid": size < 0.03}
              for name, nu in (("one-hot", 0.1), ("dirichlet", 0.05), ("dirichlet", 0.02))
              for size in sizes]  # fmt: skip
    cells += [{"supervision": "dirichlet", "nu": nu, "step_size": size, "second_order_floor": 0.25}
              for nu, size in ((0.011, 0.03), (0.006, 0.05))]  # fmt: skip
    columns = (*FLOORS, "sigma_star_sq", "linearised_floor")
    rows = table(cells, ("floor",), columns, mu=0.5, step_size_limit=0.03, stability_limit=0.2, **SHARED)
    figure = draw("step-size-sweep", results(rows))
    looks = legend(figure)
    floor, ratio, sharp, largest, check = (panel(figure, words) for words in ("(a)", "(b)", "(c)", "(d)", "set floor"))
    for label, nu in (("one-hot", 0.1), ("Dirichlet, $\\nu$ = 5.0e-02", 0.05), ("Dirichlet, $\\nu$ = 2.0e-02", 0.02)):
        own, color = rows[rows["nu"] == nu].sort_values("step_size"), looks[label].color
        assert shows_bars(floor, looks[label], own, "step_size", "floor") == 3
        shows_bars(ratio, looks[label], own, "step_size", "floor", scale=own["first_order_floor"])
        near = own["step_size"] * own["sigma_star_sq"] / 0.5
        shows_bars(sharp, looks[label], own, "step_size", "floor", scale=near)
        for line, column in (("second order", "second_order_floor"), ("first order", "first_order_floor"),
                             ("T1", "bound_floor"), ("T1'", "sharp_bound_floor")):  # fmt: skip
            shows_line(floor, None, own["step_size"], own[column], color=color, line=looks[line].line)
        second = own["second_order_floor"]
        line = looks["second order"].line
        shows_line(ratio, None, own["step_size"], second / own["first_order_floor"], color=color, line=line)
        shows_line(sharp, None, own["step_size"], second / near, color=color, line=line)
        beyond = own["step_size"] > 0.03
        over = (own["floor"] / near)[beyond]
        shows_line(sharp, None, own["step_size"][beyond], over, color=color, line="None", face="#ffffff")
    rows.loc[rows["supervision"] == "exact", "floor"] = 9.011e-11
    (said,) = (text.get_text() for text in panel(draw("step-size-sweep", results(rows)), "(a)").texts if "exact" in
               text.get_text())  # fmt: skip
    assert said.startswith("exact BCP: at most 1e-10\n")
    held = rows[rows["step_size"].isin([0.03, 0.05])].sort_values("nu")
    blue = {"color": style.BLUE.lower()}
    shows_line(largest, None, held["nu"], held["step_size"], line="-", **blue)
    first = held["step_size"] * 0.25 / held["first_order_floor"]
    shows_line(largest, None, held["nu"], first, line=looks["first order"].line, **blue)
    ((own_look, _),) = [each for each in bars(check) if len(each[1])]
    shows_bars(check, own_look, held, "nu", "floor", scale=0.25)


@pytest.mark.slow
def test_batch_sweep() -> None:
    cells = [{"supervision": name, "nu": nu, "step_size": size, "batch_size": batch}
             for name, nu in (("exact", 0.0), ("one-hot", 0.1), ("dirichlet", 0.05))
             for batch, size in ((1, 0.01), (4, 0.01), (16, 0.01), (4, 0.04), (16, 0.16))]  # fmt: skip
    rows = table(cells, ("floor", "fluctuation"), FLOORS, **{k: v for k, v in SHARED.items() if k != "batch_size"})
    keep = rows[rows["supervision"] == "one-hot"]["cell"]
    directions = pd.concat([table([{}] * 3, ("time",), ("time_theory",)).assign(cell=cell) for cell in keep])
    directions[["time", "time_low", "time_high", "time_theory"]] *= np.linspace(1, 2, len(directions))[:, None]
    figure = draw("batch-sweep", results(rows, spectrum=directions))
    looks = legend(figure)
    floor, ratio, fluctuation, times = (panel(figure, words) for words in ("(a)", "(b)", "(c)", "(d)"))
    for name in ("one-hot", "dirichlet"):
        own = family(rows, name, "batch_size")
        fixed = own[own["step_size"] == 0.01]
        scaled = own[np.isclose(own["step_size"] / own["batch_size"], 0.01)]
        both = pd.concat([fixed, scaled])
        assert shows_bars(floor, looks[name], both, "batch_size", "floor") == 6
        shows_bars(ratio, looks[name], both, "batch_size", "floor", scale=both["first_order_floor"])
        shows_bars(fluctuation, looks[name], both, "batch_size", "fluctuation")
        color = looks[name].color
        for label, cells_ in (("fixed step size", fixed), (r"fixed $\alpha/b$", scaled)):
            line = looks[label].line
            x, y = cells_["batch_size"], cells_["second_order_floor"]
            shows_line(floor, None, x, y, color=color, line=line)
            shows_line(ratio, None, x, y / cells_["first_order_floor"], color=color, line=line)
            shows_line(floor, None, x, cells_["first_order_floor"], color=color, line=looks["first order"].line)
            faces = {each.face for each, points in bars(floor) if each.color == color and len(points) == len(cells_)
                     and np.allclose(sorted(points[:, 1]), sorted(cells_["floor"]))}  # fmt: skip
            assert faces == {color if looks[label].face == looks[label].color else "#ffffff"}
    own = family(rows, "one-hot", "batch_size")
    shown = pd.concat([own[own["step_size"] == 0.01].iloc[[0, -1]], own[own["step_size"] == 0.16]])
    for label, row in zip(legend(times), shown.itertuples(), strict=True):
        marks = legend(times)[label]
        assert label == f"$b$ = {row.batch_size}, $\\alpha$ = {row.step_size:.2g}"
        part = directions[directions["cell"] == row.cell]
        assert shows_bars(times, marks, part, "time_theory", "time") == 3
        below = [ax for ax in figure.axes if "steps" in ax.get_xlabel()]
        shows_bars(below[0], marks, part, "time_theory", "time", scale=part["time_theory"])


@pytest.mark.slow
def test_frozen_labels() -> None:
    cells = [{"targets": targets, "nu": nu, "supervision": name, "training_set": size}
             for targets, size in (("frozen", 50), ("frozen", 100), ("fresh", None))
             for nu, name in ((0.0, "exact"), (0.05, "dirichlet"), (0.1, "one-hot"))]  # fmt: skip
    measured = (
        "empirical_excess_risk",
        "empirical_gap",
        "empirical_accuracy",
        "floor",
        "generalisation_gap",
        "accuracy",
    )
    columns = ("frozen_excess_risk", "frozen_gap", "frozen_floor", "step_size")
    rows = table(cells, measured, columns, **{key: value for key, value in SHARED.items() if key != "targets"})
    figure = draw("frozen-labels", results(rows))
    looks = {
        label.split(" $")[0] if "N" in label else label.split(",")[0]: each for label, each in legend(figure).items()
    }
    sizes = {size: legend(figure)[f"(e, f) $N$ = {size}"] for size in (50, 100)}
    frozen = rows[rows["targets"] == "frozen"]
    for words, measured_as, predicted in (("(a)", "empirical_excess_risk", "frozen_excess_risk"),
                                          ("(b)", "empirical_gap", "frozen_gap"), ("(d)", "floor", "frozen_floor"),
                                          ("(c)", "empirical_accuracy", None)):  # fmt: skip
        for name in ("dirichlet", "one-hot"):
            own = family(frozen, name, "training_set")
            assert shows_bars(panel(figure, words), looks[name], own, "training_set", measured_as) == 2
            if predicted:
                x, y = own["training_set"], own[predicted]
                shows_line(panel(figure, words), None, x, y, color=looks[name].color, line="-")
    for words, measured_as, predicted in (("(e)", "generalisation_gap", "frozen_gap"), ("(f)", "accuracy", None)):
        for size, marks in sizes.items():
            own = frozen[(frozen["training_set"] == size) & (frozen["nu"] > 0)]
            assert shows_bars(panel(figure, words), marks, own, "nu", measured_as) == 2
            if predicted:
                shows_line(panel(figure, words), None, own["nu"], own[predicted], color=marks.color, line="-")
    fresh = rows[rows["targets"] == "fresh"]
    limit = legend(figure)["(d, f) fresh targets"]
    noisy_rows = fresh[fresh["nu"] > 0]
    shows_line(panel(figure, "(f)"), None, noisy_rows["nu"], noisy_rows["accuracy"], line=limit.line, color=limit.color)
    best = family(fresh, "exact")["accuracy"].item()
    shows_line(panel(figure, "(f)"), legend(figure)["(f) exact BCP"], [0, 1], [best, best])
    for name in ("dirichlet", "one-hot"):
        level = family(fresh, name)["floor"].item()
        shows_line(panel(figure, "(d)"), None, [0, 1], [level, level], color=looks[name].color, line=limit.line)


@pytest.mark.slow
def test_nonconvex_sweep() -> None:
    cells = [{"student": student, "supervision": name, "nu": nu, "step_size": size, "stationary": size < 0.3}
             for student in ("factored-least-squares", "mlp")
             for name, nu in (("exact", 0.0), ("dirichlet", 0.02), ("dirichlet", 0.05), ("one-hot", 0.1))
             for size in (0.1, 0.2, 0.4)]  # fmt: skip
    shared = {key: value for key, value in SHARED.items() if key not in ("student", "stationary", "diverged")}
    rows = table(cells, ("excess_risk_floor",), ("L_max_estimate", "diverged"), **shared)
    limits = {("mlp", "exact"): 2.0, ("mlp", "one-hot"): 3.0}
    rows["L_max_estimate"] = [limits.get(key) for key in zip(rows["student"], rows["supervision"], strict=True)]
    figure = draw("nonconvex-sweep", results(rows))
    looks = legend(figure)
    for column, student in enumerate(("factored-least-squares", "mlp")):
        floor, lost = figure.axes[column], figure.axes[2 + column]
        for label, nu in (("exact", 0.0), ("Dirichlet, level 1", 0.02), ("Dirichlet, level 2", 0.05), ("one-hot", 0.1)):
            own = rows[(rows["student"] == student) & (rows["nu"] == nu)]
            marks = looks[label]
            assert shows_bars(floor, marks, own, "step_size", "excess_risk_floor") == 3
            shows_line(floor, None, own["step_size"], own["excess_risk_floor"], color=marks.color, line="-")
            shows_line(lost, None, own["step_size"], own["diverged"] / 8, color=marks.color)
            hollow = [points for each, points in bars(floor) if each.color == marks.color and each.face == "#ffffff"]
            assert np.concatenate(hollow)[:, 0] == pytest.approx(own["step_size"][~own["stationary"]])
    for label in ("exact", "one-hot"):
        place = 1 / limits["mlp", label]
        shows_line(figure.axes[1], None, [place, place], [0, 1], color=looks[label].color, line=":")


@pytest.mark.slow
def test_pl_sweep() -> None:
    ranks = (("full rank", {"problem.samples": 64, "problem.dimension": 4, "problem.rank": None}),
             ("rank-deficient", {"problem.samples": 64, "problem.dimension": 4, "problem.rank": 2}),
             ("over-parametrised", {"problem.samples": 4, "problem.dimension": 8, "problem.rank": 4}),
             ("softmax, no ridge", {"problem.samples": 64, "problem.dimension": 4, "problem.rank": None,
                                    "student": "softmax-regression"}))  # fmt: skip
    cells = [{"student": "least-squares", "who": name} | own | each for name, own in ranks for each in (
        {"supervision": "exact", "nu": 0.0, "step_size": 0.01},
        {"supervision": "one-hot", "nu": 0.2, "step_size": 0.01},
        {"supervision": "one-hot", "nu": 0.2, "step_size": 0.04, "risk_bound_valid": False},
        {"supervision": "dirichlet", "nu": 0.05, "step_size": 0.01},
        {"supervision": "annotators", "nu": 0.1, "step_size": 0.01})]  # fmt: skip
    columns = ("exact_excess_risk", "first_order_excess_risk", "second_order_excess_risk", "risk_bound_floor",
               "sharp_risk_bound_floor", "risk_step_size_limit", "stability_limit")  # fmt: skip
    shared = {key: value for key, value in SHARED.items() if key != "student"} | {"mu_pl_kind": "exact"}
    shared |= {"sharp_risk_bound_valid": False}
    cells = [{"risk_bound_valid": True} | cell for cell in cells]
    rows = table(cells, ("excess_risk_floor",), columns, **shared)
    names = ("excess_risk_mean", "excess_risk_q05", "excess_risk_q95", "exact_excess_risk", "risk_bound",
             "sharp_risk_bound")  # fmt: skip
    tables = curves(rows["cell"], names, step=STEPS)
    figure = draw("pl-sweep", results(rows, curves=tables))
    above, below = (legend(part) for part in figure.subfigs)
    for place, (who, _) in enumerate(ranks):
        for name, label in (("exact", "exact BCP"), ("one-hot", "one-hot"), ("dirichlet", "dirichlet")):
            ax = panel(figure, f"({'abcd'[place]})")
            row = rows[(rows["who"] == who) & (rows["supervision"] == name)].iloc[0]
            curve, color = tables[(tables["cell"] == row["cell"]) & (tables["step"] > 0)], above[label].color
            shows_line(ax, None, curve["step"], curve["excess_risk_mean"], color=color, line="-")
            shows_band(ax, color, curve["step"], curve["excess_risk_q05"], curve["excess_risk_q95"])
            for line, column in (("T2", "risk_bound"), ("T2'", "sharp_risk_bound")):
                shows_line(ax, None, curve["step"], curve[column], color=color, line=above[line].line)
            shows_line(ax, above["exact theory"], curve["step"], curve["exact_excess_risk"])
        own = rows[rows["who"] == who]
        least = own[(own["nu"] > 0) & (own["step_size"] == 0.01)].sort_values("nu")
        nu_panel, step_panel, ratio = (
            panel(figure, words) for words in ("smallest step", "under one-hot", "measured /")
        )
        for name in ("one-hot", "dirichlet", "annotators"):
            marks = type(below[name])(below[who].color, "", below[name].marker, "")
            assert shows_bars(nu_panel, marks, least[least["supervision"] == name], "nu", "excess_risk_floor") == 1
        lines = (("T2: line or bar", "risk_bound_floor", "_"), ("T2': line or cross", "sharp_risk_bound_floor", "x"))
        shows_line(nu_panel, None, least["nu"], least["exact_excess_risk"], color=below[who].color, line="-")
        swept = own[own["supervision"] == "one-hot"].sort_values("step_size")
        apart = 1.06 ** (place - 1.5)
        x = swept["step_size"] / swept["risk_step_size_limit"] * apart
        assert shows_bars(step_panel, below[who], swept, x, "excess_risk_floor") == 2
        for label, column, marker in lines:
            shows_line(nu_panel, None, least["nu"], least[column], color=below[who].color, line=below[label].line)
            assert below[label].marker == marker
            shows_line(step_panel, None, x, swept[column], color=below[who].color, marker=marker)
        hollow = [p[:, 0] for each, p in bars(step_panel) if (each.color, each.face) == (below[who].color, "#ffffff")]
        assert np.concatenate(hollow) == pytest.approx([x.iloc[-1]])
        told = own[own["supervision"].isin(["one-hot", "dirichlet"])]
        x, predicted = told["step_size"] / told["stability_limit"] * apart, told["second_order_excess_risk"]
        shows_bars(ratio, below[who], told, x, "excess_risk_floor", scale=predicted)


def test_paper_synthetic() -> None:
    cells = [{"supervision": name, "level": level, "nu": nu, "targets": targets}
             for targets in ("frozen", "fresh")
             for name, level, nu in (("exact", None, 0.0), ("dirichlet", 3.0, 0.05),
                                     ("one-hot", None, 0.1))]  # fmt: skip
    shared = {key: value for key, value in SHARED.items() if key != "targets"} | {"bayes_loss": 0.11}
    rows = table(cells, ("fluctuation", "excess_loss"), ("step_size",), **shared)
    names = [f"{name}_{end}" for name in ("loss", "label_accuracy", "bcp_l2") for end in ("mean", "q05", "q95")]
    tables = curves(rows["cell"], names, step=STEPS)
    figure = draw("paper-synthetic", results(rows, curves=tables))
    looks = legend(figure)
    for row in rows.itertuples():
        label = "Dirichlet, $c$ = 3" if row.supervision == "dirichlet" else row.supervision
        marks, kind = looks[label], looks[f"{row.targets} targets"]
        curve = tables[(tables["cell"] == row.cell) & (tables["step"] >= 1000 / 450)]
        for words, metric, zero in (("(a)", "loss", 0.11), ("(b)", "label_accuracy", 0), ("(c)", "bcp_l2", 0)):
            ax = panel(figure, words)
            shows_line(ax, None, curve["step"], curve[f"{metric}_mean"] - zero, color=marks.color, line=kind.line)
            if row.targets == "frozen":
                edges = (curve[f"{metric}_{end}"] - zero for end in ("q05", "q95"))
                shows_band(ax, marks.color, curve["step"], *edges)
        faces = [each.face for each, points in bars(panel(figure, "(d)")) if np.isclose(points[0, 0], row.fluctuation)]
        assert faces == ["#ffffff" if row.targets == "fresh" else marks.color]
    for label in ("exact", "Dirichlet, $c$ = 3", "one-hot"):
        own = rows[rows["supervision"] == label.split(",")[0].lower()]
        marks = type(looks[label])(looks[label].color, "", "o", "")
        assert shows_bars(panel(figure, "(d)"), marks, own, "fluctuation", "excess_loss", along_x=True) == 2
