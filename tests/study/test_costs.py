"""The share of the cost that is done, by which progress tells the time that is left."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from kdsim.data import KnownImages, KnownPoints
from kdsim.problems import GaussianMixture, Images
from kdsim.studies.deviations import Deviations
from kdsim.study import runner
from kdsim.study.costs import step_cost
from kdsim.study.trainings import Fitting, Training
from kdsim.teachers import Deterministic
from kdsim.trainer import ImageNetwork, PointNetwork, StudentTrainer

IMAGES = StudentTrainer(ImageNetwork("resnet8"), KnownImages(Images(samples=100)))
POINTS = StudentTrainer(PointNetwork("linear"), KnownPoints(GaussianMixture(samples=4_000)))


def test_larger_networks_cost_more_and_points_next_to_nothing():
    resnet20, points = replace(IMAGES, student=ImageNetwork("resnet20")), Training(POINTS)
    costs = [step_cost(job) for job in (points, Training(IMAGES), Training(resnet20))]
    assert costs[0] < 0.01 * costs[1] < 0.01 * costs[2]
    assert step_cost(Fitting(Deterministic(IMAGES))) > 0
    assert step_cost(object()) == 1.0  # jobs that are all alike


def test_a_teacher_of_images_that_stay_is_asked_once():
    taught = replace(IMAGES, supervision=Deterministic(IMAGES))
    assert step_cost(Training(taught)) == step_cost(Training(IMAGES))


@pytest.mark.slow
def test_the_share_rises_to_one_in_a_mixed_study(tmp_path: Path):
    """Computations, points and images: replica-steps are over long before the cost is."""
    seen: list[runner.Progress] = []
    images = KnownImages(Images(classes=3, samples=64, validation_samples=16, test_samples=16, clutter=0, dimension=2))
    study = Deviations(parts=("paths", "points", "images")).quick()
    study = replace(study, networks=("linear",), data=images)
    result = runner.run(study, tmp_path, progress=seen.append)
    assert not result.failures
    shares = [progress.share for progress in seen]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(1, abs=1e-6)
    points = [progress for progress in seen if progress.done / progress.total < 0.5]
    assert max(progress.share for progress in points) < 0.1
