"""long-tail at a size of seconds: its cells, the columns of its rows, its tables and its figure."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from kdsim import config
from kdsim.cli import main
from kdsim.config import digest
from kdsim.conventions import GROUPS
from kdsim.data import Cifar10, KnownImages, KnownPoints
from kdsim.engines import GradientDescent, StepDecay
from kdsim.losses import DKD, KD, LTKD, BalancedSoftmax, LabelCrossEntropy, LogitAdjustment
from kdsim.problems import GaussianMixture, Images, LongTail, SoftmaxLinear
from kdsim.problems.long_tail import balanced_prior, exponential_prior, under_prior
from kdsim.results.store import StudyResults, read_study
from kdsim.simplex import kl_divergence
from kdsim.studies.long_tail import ON_LABELS, TAUGHT, LongTailStudy
from kdsim.study import group_report, runner
from kdsim.study.packs import cells_of
from kdsim.study.training_bias import bias_columns
from kdsim.supervision import Dirichlet, Exact, OneHot
from kdsim.teachers import Deterministic
from kdsim.trainer import ImageNetwork, PointNetwork, StudentTrainer
from kdsim.training import Recipe
from kdsim.training.groups import groups_of

SMALL = LongTailStudy(
    data=("points",),
    imbalances=(20.0,),
    problem=SoftmaxLinear(classes=6, dimension=3, entropy=0.9, conditioning=2.0, samples=400),
    validation_samples=200,
    test_samples=300,
    recipe=Recipe(
        epochs=30.0, batch_size=100, step_size=0.5, optimiser=GradientDescent(0.9), schedule=StepDecay((0.7,), 0.1)
    ),
    evaluations=4,
    replicas=3,
)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    result = runner.run(SMALL, tmp_path_factory.mktemp("long-tail"))
    assert result.failures == []
    return read_study(result.folder)


def rows_of(stored: StudyResults) -> dict[tuple[str, str], dict]:
    return {(row["loss_name"], row["supervision"]): row for row in stored.records}


# Cells ------------------------------------------------------------------------------------


def test_cells_are_whole_and_can_be_stored() -> None:
    for study in (LongTailStudy(), LongTailStudy().quick(), SMALL, LongTailStudy(data=("cifar10", "cifar100"))):
        cells = cells_of(study)
        digests = [digest(cell) for cell in cells]
        assert len(set(digests)) == len(digests)
        trained = {digest(cell.teacher.training) for cell in cells if cell.teacher}
        assert trained <= set(digests)  # what teaches has a row
        assert all(config.encode(cell) for cell in cells)


def test_what_teaches_and_what_is_taught() -> None:
    cells = LongTailStudy(imbalances=(50.0,)).cells()
    points = [cell for cell in cells if isinstance(cell.student, PointNetwork)]
    assert {cell.data.problem.imbalance for cell in points} == {50.0}
    by_teacher = {
        kind: [type(cell.loss) for cell in points if isinstance(cell.supervision, kind)]
        for kind in (OneHot, Exact, Dirichlet, Deterministic)
    }
    assert len(by_teacher[OneHot]) == len(ON_LABELS)
    assert by_teacher[Exact] == by_teacher[Deterministic] == [KD, DKD, LTKD, LTKD, LTKD]
    assert by_teacher[Dirichlet] == [KD, LTKD, LTKD, LTKD]
    corrections = {(c.loss.rebalance, c.loss.equal_groups) for c in points if isinstance(c.loss, LTKD)}
    assert corrections == {(True, True), (True, False), (False, True)}
    images = [cell for cell in cells if isinstance(cell.student, ImageNetwork)]
    assert len(images) == 1 + len(ON_LABELS) + len(TAUGHT)
    assert images[0].student.network == "resnet20" and {cell.student.network for cell in images[1:]} == {"resnet8"}
    assert LongTailStudy(data=("cifar10",), image_imbalances=(100.0,)).cells()[0].data == Cifar10(imbalance=100.0)


# Data -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_validation_and_test_are_balanced_and_training_is_not() -> None:
    images = Images(classes=4, samples=400, validation_samples=300, test_samples=300, clutter=0, dimension=2)
    source = KnownImages(replace(images, imbalance=20.0))
    pools, prior = source.pools(1), exponential_prior(4, 20.0)
    for pool, expected in (
        (pools.train, prior),
        (pools.validation, balanced_prior(4)),
        (pools.test, balanced_prior(4)),
    ):
        z = (pool.p.mean(0) - expected) / (pool.p.std(0) / pool.size**0.5)
        assert z.abs().max() < 4.5
    whole = torch.cat([pool.x.flatten(1) for pool in (pools.train, pools.validation, pools.test)])
    assert len(whole.unique(dim=0)) == 1000
    assert source.class_shares == tuple(prior.tolist())
    balanced = KnownImages(images)
    assert balanced.class_shares is None
    assert torch.equal(balanced.pools(1).validation.x, images.split(1).validation.x)  # as it was
    assert KnownPoints(LongTail(GaussianMixture(), 1.0)).class_shares is None
    assert KnownPoints(LongTail(GaussianMixture(), 5.0)).class_shares == tuple(exponential_prior(5, 5.0).tolist())
    shares = Cifar10(imbalance=100.0).class_shares
    assert shares[0] / shares[-1] == pytest.approx(100) and sum(shares) == pytest.approx(1)
    assert Cifar10(few_shot=0.5).class_shares is None


def test_losses_learn_the_class_shares_of_the_data() -> None:
    data = KnownPoints(LongTail(GaussianMixture(samples=200), 5.0), 20, 20)
    trainer = StudentTrainer(PointNetwork("linear"), data, loss=BalancedSoftmax(), recipe=Recipe(epochs=1.0))
    task = trainer.task(trainer.pools())
    assert task.loss == BalancedSoftmax(class_counts=data.class_shares)
    assert [group.tolist() for group in task.groups] == [[0, 1], [2], [3, 4]]
    own = replace(trainer, loss=LogitAdjustment(class_counts=(1.0,) * 5))
    assert own.task(own.pools()).loss == own.loss
    even = replace(trainer, data=KnownPoints(GaussianMixture(samples=200), 20, 20))
    assert even.task(even.pools()).groups == ()


def test_an_imbalance_of_one_is_equal_shares() -> None:
    """Balanced softmax is then the cross-entropy; there are no groups, and of other data nothing is assumed."""
    data = KnownPoints(LongTail(GaussianMixture(samples=200), 1.0), 20, 20)
    trainer = StudentTrainer(PointNetwork("linear"), data, loss=BalancedSoftmax(), recipe=Recipe(epochs=2.0))
    task = trainer.task(trainer.pools())
    assert task.loss.class_counts == pytest.approx((0.2,) * 5) and task.groups == ()
    plain = replace(trainer, loss=LabelCrossEntropy()).run().record.test
    for name, score in trainer.run().record.test.items():
        torch.testing.assert_close(score, plain[name], rtol=1e-4, atol=1e-6)
    for source in (Cifar10(), Cifar10(few_shot=0.5), KnownImages(Images(classes=10))):
        assert source.class_prior == pytest.approx((0.1,) * 10)
    assert KnownPoints(GaussianMixture()).class_prior is None
    long = Cifar10(imbalance=100.0)
    assert long.class_prior == long.class_shares


def test_the_warmup_of_dkd_is_a_share_of_the_recipe() -> None:
    data = KnownPoints(GaussianMixture(samples=200), 20, 20)
    trainer = StudentTrainer(PointNetwork("linear"), data, loss=DKD(), recipe=Recipe(epochs=6.0))
    assert trainer.task(trainer.pools()).loss.warmup_epochs == pytest.approx(0.5)


# Results ----------------------------------------------------------------------------------


@pytest.mark.slow
def test_every_row_has_its_groups_and_parts(stored: StudyResults) -> None:
    for row in stored.records:
        assert row["imbalance"] == pytest.approx(20) and row["diverged"] == 0
        for name in GROUPS:
            assert row[f"test_accuracy_{name}_low"] <= row[f"test_accuracy_{name}"] <= 1
            assert row[f"floor_{name}_low"] <= row[f"floor_{name}"] <= row[f"floor_{name}_high"]
        assert row["floor_between"] + row["floor_within"] == pytest.approx(row["floor"], rel=1e-9)
        # From networks read back in float32: the identity of the two parts, to its rounding.
        assert row["test_bias"] + row["test_variance"] == pytest.approx(row["test_bcp_kl"], rel=1e-5, abs=1e-7)
        assert row["test_bias_between"] + row["test_bias_within"] == pytest.approx(row["test_bias"], abs=1e-9)
    assert {f"bcp_kl_{part}_mean" for part in ("between", "within", *GROUPS)} <= set(stored.curves)


@pytest.mark.slow
def test_the_bias_of_the_long_tailed_bcp(stored: StudyResults) -> None:
    pool = SMALL.cells()[0].pools().test
    tail = under_prior(pool.p, balanced_prior(6), exponential_prior(6, 20.0))
    divergence = kl_divergence(pool.p, tail)
    for row in stored.records:
        assert row["prior_bias"] == pytest.approx(divergence.mean().item())
        shares = [pool.p[:, group].sum() / pool.size for group in groups_of((6, 5, 4, 3, 2, 1))]
        total = sum(share * row[f"prior_bias_{name}"] for share, name in zip(shares, GROUPS, strict=True))
        assert float(total) == pytest.approx(row["prior_bias"])
        assert 0 < row["group_prior_bias"] < row["prior_bias"]


@pytest.mark.slow
def test_students_of_the_exact_bcp_have_its_bias(stored: StudyResults) -> None:
    """The limits that are known: KD, DKD and equal groups alone keep the teacher's bias, and nothing varies.

    Rebalancing leaves the bias of equally frequent groups, balanced softmax on labels hardly any.
    """
    rows = rows_of(stored)
    for loss in ("kd", "dkd", "ltkd-equal-groups"):
        row = rows[loss, "exact"]
        assert row["test_bias"] == pytest.approx(row["prior_bias"], rel=0.02), loss
        assert abs(row["test_bias_removed"]) < 0.02 and row["test_variance"] < 1e-3
    for loss in ("ltkd", "ltkd-rebalanced"):
        # Up to what a batch of 100 differs from the population in.
        assert rows[loss, "exact"]["test_bias"] == pytest.approx(rows[loss, "exact"]["group_prior_bias"], rel=0.05)
        assert rows[loss, "exact"]["test_bias_removed_low"] > 0.7
        assert rows[loss, "deterministic"]["test_bias_removed_low"] > 0.4
    assert rows["balanced-softmax", "one-hot"]["test_bias_removed"] > 0.7
    for loss in ("kd", "ltkd"):
        assert rows[loss, "dirichlet"]["test_variance"] > 10 * rows[loss, "exact"]["test_variance"]
    head, tail = (rows["kd", "exact"][f"test_accuracy_{name}"] for name in ("head", "tail"))
    assert head > tail + 0.2


@pytest.mark.slow
def test_the_tables(stored: StudyResults) -> None:
    first, second = group_report.tables(stored.records)
    assert first.headers == ["loss", "taught by", "acc. %", *(f"{n} %" for n in GROUPS), *(f"KL {n}" for n in GROUPS)]
    assert second.headers == ["loss", "taught by", "KL to p", "bias", "variance", *GROUPS, "removed, %"]
    assert len(first.rows) == len(second.rows) == len(stored.records)
    for table in (first, second):
        assert all(len(cells) == len(table.headers) for cells in table.rows)
        assert all("±" in cells[-1] or " to " in cells[-1] for cells in table.rows)
        assert table.common["imbalance"] == "20"
    lost = [row | {"diverged": 1, "test_accuracy_tail": None} for row in stored.records[:1]]
    assert group_report.tables(lost)[0].rows[0][1] == "one-hot (1 diverged)"
    assert group_report.tables([{"kind": "training", "data": "known-points"}]) == []


@pytest.mark.slow
def test_from_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Points and images; printed within 120 columns, stored, and drawn again from what is stored."""
    monkeypatch.setenv("COLUMNS", "120")
    sizes = ["--set=images.samples=96", "--set=images.validation_samples=32", "--set=images.test_samples=40"]
    command = ["run-study", "long-tail", "--quick", *sizes, "--set=image_recipe.epochs=1", f"--out={tmp_path}"]
    assert main(command) == 0
    out = capsys.readouterr().out
    words = " ".join(out.split())  # lines break where they must
    assert "bias of the long-tailed BCP" in words and "known-images, imbalance 50" in words
    assert max(len(line) for line in out.splitlines() if str(tmp_path) not in line) <= 120
    assert out.count("figure") >= 2
    assert main(["figure", "long-tail", "--format=svg", f"--out={tmp_path}"]) == 0
    text = next((tmp_path / "long-tail").glob("*/long-tail.svg")).read_text()
    for words in ("known-points, imbalance 10", "known-images, imbalance 50", "between groups", "variance"):
        assert words in text, words
    capsys.readouterr()
    assert main(["results", "long-tail", f"--out={tmp_path}", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    assert {row["data"] for row in rows} == {"known-points", "known-images"}
    assert all(row["test_bias_removed"] is not None for row in rows)


@pytest.mark.slow
def test_the_figure_of_points_alone(stored: StudyResults) -> None:
    from kdsim.figures.long_tail import figure

    drawn = figure(stored)
    assert len(drawn.axes) == 3
    first, second, third = drawn.axes
    assert len(first.get_yticklabels()) == len(stored.records)
    assert len(second.patches) == 2 * len(stored.records)  # a bar of bias and one of variance for each student
    assert len(third.lines) == 2 * 4  # between and within, of KD and three forms of LTKD


def test_one_replica_has_groups_and_no_variance() -> None:
    one = replace(SMALL.cells()[0], replicas=1, recipe=replace(SMALL.recipe, epochs=1.0))
    trained = one.run()
    assert bias_columns(one, trained) == {}
    assert {f"accuracy_{name}" for name in GROUPS} <= trained.record.test.keys() & trained.record.curves.keys()
    two = replace(one, replicas=2)
    row = bias_columns(two, two.run())
    assert row["test_bias_low"] < row["test_bias"] and row["test_variance"] > 0


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["data=cifar"], ("cifar", "cifar10")),
        (["data="], ("data", "empty")),
        (["losses=kld"], ("kld", "kd")),
        (["teachers=trainde"], ("trainde", "trained")),
        (["imbalances=0.5"], ("imbalances", "0.5")),
        (["imbalances=1"], ("imbalances", "1.0")),
        (["replicas=1"], ("replicas", ">= 2")),
        (["label_weight=1"], ("label_weight", "[0, 1)")),
        (["temperature=0"], ("temperature", "> 0")),
        (["alpha=-1"], ("alpha", ">= 0")),
        (["tau=-1"], ("tau", ">= 0")),
        (["problem=digits"], ("problem", "gaussian-mixture or softmax-linear")),
        (["pair=resnet8"], ("resnet8", "TEACHER to STUDENT")),
        (["images.imbalance=5"], ("images.imbalance", "image_imbalances")),
    ],
)
def test_bad_settings_are_one_line(
    settings: list[str], words: tuple[str, ...], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main(["run-study", "long-tail", f"--out={tmp_path}", *(f"--set={text}" for text in settings)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert all(word in err for word in words), err
