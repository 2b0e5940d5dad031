"""Sources of images: the contract on small archives in the official format, and what each source promises besides."""

import json
import os
from dataclasses import replace
from typing import get_args

import numpy as np
import pytest
import tiny_cifar
import torch

from kdsim import config, problems
from kdsim.config import ConfigError, decode, digest, encode, override
from kdsim.data import SOURCES, Cifar10, Cifar10H, Cifar100, ImageSource, KnownImages, Pools, cifar_sources, human
from kdsim.data.cifar import sources as places
from kdsim.problems import Images
from kdsim.simplex import entropy

SIZES = {"cifar10": (200, 100), "cifar100": (1000, 200)}  # 20 and 10, 10 and 2 of a class
SMALL = Images(classes=4, samples=60, validation_samples=20, test_samples=30)
CASES = (
    KnownImages(SMALL),
    Cifar10(),
    Cifar10("worse_label", few_shot=0.5, validation=0.2),
    Cifar10("aggre_label", people=True, imbalance=4.0, test_images=30),
    Cifar10H(test_images=60),
    Cifar100(few_shot=0.5, test_images=50),
    Cifar100(imbalance=3.0),
)
KEYS = {"source", "source_sha256", "digest", "classes", "train_size", "validation_size", "test_size", "train_truth",
        "test_truth"}  # fmt: skip
PARTS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A folder with both data sets and both files of human labels, and what is in it."""
    folder = tmp_path_factory.mktemp("sources")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tiny_cifar, "SIZES", SIZES)
        tiny_cifar.expect_small(patch)
        for name in SIZES:
            tiny_cifar.write_folder(folder, name, "binary")
        tiny = tiny_cifar.make("cifar10")
    rng = np.random.default_rng(3)
    clean = tiny.train_labels
    wrong = (clean + rng.integers(1, 10, (3, len(clean)))) % 10
    three = np.where(rng.random((3, len(clean))) < 0.25, wrong, clean)
    labels = dict(zip(cifar_sources.VOTERS, three, strict=True))
    labels["worse_label"] = np.where(three[0] != clean, three[0], np.where(three[1] != clean, three[1], three[2]))
    labels["aggre_label"] = np.where(three[1] == three[2], three[1], three[0])
    np.savez(folder / "cifar10n.npz", clean_label=clean, **labels)
    counts = rng.multinomial(10, np.full(10, 0.1), len(tiny.test_labels))
    counts[np.arange(len(counts)), tiny.test_labels] += 40
    np.savez(folder / "cifar10h.npz", counts=counts, probs=counts / 50)
    return folder, tiny, labels, counts / 50


@pytest.fixture
def folder(written, monkeypatch):
    """That folder, with readers that expect its sizes."""
    monkeypatch.setattr(tiny_cifar, "SIZES", SIZES)
    tiny_cifar.expect_small(monkeypatch)
    return written[0]


def refusal(function, *args, **settings):
    """The one line with which a call is refused."""
    with pytest.raises(ConfigError) as caught:
        function(*args, **settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def positions(pool, images):
    """Where the images of a pool are among all; random pixels make every image one of a kind."""
    place = {image.tobytes(): number for number, image in enumerate(images)}
    return [place[image.tobytes()] for image in pool.x.numpy()]


def same(first, second):
    return all(torch.equal(getattr(first, name), getattr(second, name)) for name in ("x", "p", "y"))


# The contract -----------------------------------------------------------------------------------


@pytest.mark.parametrize("source", CASES, ids=lambda source: f"{source.name}-{digest(source)[:4]}")
class TestContract:
    def test_shapes_and_types(self, source, folder):
        pools = source.pools(0, folder)
        for part in PARTS:
            pool = getattr(pools, part)
            assert pool.x.shape == (pool.size, 3, 32, 32) and pool.x.dtype == torch.uint8
            assert pool.p.shape == (pool.size, source.classes) and pool.p.dtype == torch.float64
            assert pool.y.shape == (pool.size,) and pool.y.dtype == torch.int64
            assert pool.y.min() >= 0 and pool.y.max() < source.classes
            assert {tensor.device.type for tensor in (pool.x, pool.p, pool.y)} == {"cpu"}
            assert pool.optimum is None

    def test_no_image_is_in_two_pools(self, source, folder):
        pools = source.pools(0, folder)
        images = [{image.tobytes() for image in getattr(pools, part).x.numpy()} for part in PARTS]
        assert len(set.union(*images)) == sum(getattr(pools, part).size for part in PARTS)

    def test_p_is_what_the_truths_say(self, source, folder):
        pools = source.pools(0, folder)
        for truth, parts in ((source.train_truth, PARTS[:2]), (source.test_truth, PARTS[2:])):
            for pool in (getattr(pools, part) for part in parts):
                one_hot = torch.nn.functional.one_hot(pool.y, source.classes)
                assert torch.equal(pool.p, one_hot.double()) == (truth == "labels")
                assert (entropy(pool.p).mean() > 0.05) == (truth != "labels")
                assert (pool.p.min() > 0) == (truth == "bcp")

    def test_the_seed_decides(self, source, folder):
        before = torch.get_rng_state(), np.random.get_state()[1].copy()
        first, again, other = (source.pools(seed, folder) for seed in (7, 7, 8))
        assert torch.equal(before[0], torch.get_rng_state()) and (before[1] == np.random.get_state()[1]).all()
        for part in PARTS:
            assert same(getattr(first, part), getattr(again, part))
        for part in PARTS[:2]:
            assert not torch.equal(getattr(first, part).x, getattr(other, part).x)
        assert same(first.test, other.test) == (not isinstance(source, KnownImages))
        for seed in (-1, 0.5, True):
            assert "seed" in refusal(source.pools, seed, folder)

    def test_pools_are_copies(self, source, folder):
        first = source.pools(5, folder)
        for part in PARTS:
            for tensor in (getattr(first, part).x, getattr(first, part).p, getattr(first, part).y):
                tensor.zero_()
        again = source.pools(5, folder)
        for part in PARTS:
            assert getattr(again, part).x.any() and getattr(again, part).y.any()
        assert again.provenance == first.provenance

    def test_provenance(self, source, folder):
        pools, other = source.pools(0, folder), source.pools(1, folder)
        found = json.loads(json.dumps(pools.provenance))
        assert found == pools.provenance and set(found) >= KEYS
        assert [found[f"{part}_size"] for part in PARTS] == [getattr(pools, part).size for part in PARTS]
        assert (found["train_truth"], found["test_truth"]) == (source.train_truth, source.test_truth)
        assert found["classes"] == source.classes and found["source"]
        assert len(found["digest"]) == 64
        drawn = isinstance(source, KnownImages)
        assert (found["digest"] != other.provenance["digest"]) == drawn == (found["source_sha256"] == "")

    def test_it_is_a_config(self, source):
        again = decode(json.loads(json.dumps(encode(source))), (*SOURCES, Images))
        assert again == source and hash(again) == hash(source)

    def test_one_without_a_folder(self, source):
        if isinstance(source, KnownImages):
            assert same(source.pools(0).train, source.pools(0, "nowhere").train)  # a folder is not even looked for
            return
        data_set = "cifar100" if isinstance(source, Cifar100) else "cifar10"
        for nothing in (None, ""):
            line = refusal(source.pools, 0, nothing)
            assert f"KDSIM_DATA) must name the folder with {data_set}:" in line
        assert "must be a folder that exists" in refusal(source.pools, 0, "nowhere")


def test_every_source_is_under_the_contract():
    assert {type(case) for case in CASES} == set(SOURCES)
    assert all(issubclass(source, ImageSource) for source in SOURCES)


def test_names_do_not_clash_with_those_of_problems():
    kinds = (*SOURCES, *problems.PROBLEMS, *problems.IMAGE_PROBLEMS)  # all in one stored config
    assert len(config.by_name(kinds)) == len(kinds)


def test_pools_that_break_the_contract_are_refused():
    good = KnownImages(SMALL).pools(0)
    for change, text in (
        ({"p": None}, "p and y must be given"),
        ({"p": good.test.p.float()}, "must be (N, K) float64"),
        ({"p": torch.full((30, 5), 0.2, dtype=torch.float64)}, "the K of all pools"),
        ({"x": good.test.x.float()}, "uint8"),
        ({"y": good.test.y + 1}, "reach from 1 to 4"),
        ({"y": good.test.y[1:]}, "must be (30,)"),
    ):
        line = refusal(Pools, good.train, good.validation, replace(good.test, **change), good.provenance)
        assert line.startswith("test pool: ") and text in line


# Which images -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_known_images_are_the_problems():
    pools, split = KnownImages(SMALL).pools(3), SMALL.split(3)
    assert all(same(getattr(pools, part), getattr(split, part)) for part in PARTS)
    more = KnownImages(replace(SMALL, validation_samples=21)).pools(3)
    assert more.provenance["digest"] != pools.provenance["digest"]  # the digest covers all three pools


def test_the_official_split_is_kept(folder, written):
    tiny = written[1]
    pools = Cifar10().pools(0, folder)
    train, held_out = (positions(pool, tiny.train_images) for pool in (pools.train, pools.validation))
    assert sorted(train + held_out) == list(range(200)) and train == sorted(train)
    assert pools.validation.y.bincount().tolist() == [2] * 10
    assert pools.train.y.tolist() == tiny.train_labels[train].tolist()
    assert positions(pools.test, tiny.test_images) == list(range(100))
    assert pools.test.y.tolist() == tiny.test_labels.tolist()
    assert positions(Cifar10(test_images=7).pools(4, folder).test, tiny.test_images) == list(range(7))


def test_all_training_sets_of_a_seed_have_one_validation_pool(folder):
    whole = Cifar10().pools(2, folder)
    for source in (Cifar10(few_shot=0.3), Cifar10(imbalance=5.0), Cifar10(test_images=5)):
        assert same(source.pools(2, folder).validation, whole.validation)


@pytest.mark.parametrize("kind", [Cifar10, Cifar100])
def test_few_shot_sets_are_nested(folder, kind):
    sets = []
    for share, kept in ((0.25, 1 / 4), (0.5, 1 / 2), (1.0, 1.0)):
        pool = kind(few_shot=share, validation=0.2).pools(1, folder).train
        each = SIZES[kind.data_set][0] // len(pool.p[0]) * 0.8 * kept
        assert pool.y.bincount().tolist() == [each] * len(pool.p[0])
        sets.append({image.tobytes() for image in pool.x.numpy()})
    assert sets[0] < sets[1] < sets[2]


def test_the_long_tail_is_of_what_is_not_held_out(folder):
    pools = Cifar10(imbalance=9.0).pools(1, folder)
    assert pools.train.y.bincount().tolist() == [int(18 * 9 ** (-k / 9) + 1e-9) for k in range(10)]
    assert pools.validation.y.bincount().tolist() == [2] * 10 and pools.test.y.bincount().tolist() == [10] * 10


# What is taught ---------------------------------------------------------------------------------


@pytest.mark.parametrize("few_shot", [1.0, 0.5])
@pytest.mark.parametrize("people", [False, True])
@pytest.mark.parametrize("labels", get_args(cifar_sources.LabelSet))
def test_labels_and_people(folder, written, labels, people, few_shot):
    _, tiny, sets, votes = written
    pools = Cifar10(labels, people, few_shot=few_shot).pools(6, folder)
    official = Cifar10(few_shot=few_shot).pools(6, folder)
    said = sets.get(labels, tiny.train_labels)
    for part in PARTS[:2]:
        pool = getattr(pools, part)
        assert torch.equal(pool.x, getattr(official, part).x)  # the same images whatever they are called
        index = positions(pool, tiny.train_images)
        assert pool.y.tolist() == said[index].tolist()
        for row, number in zip(pool.p.numpy(), index, strict=True):
            names = [sets[voter][number] for voter in cifar_sources.VOTERS] if people else [said[number]]
            assert np.allclose(row, np.bincount(names, minlength=10) / len(names), rtol=0, atol=1e-15)
    assert pools.test.y.tolist() == tiny.test_labels.tolist()
    assert np.allclose(pools.test.p.numpy(), votes if people else np.eye(10)[tiny.test_labels], rtol=0, atol=1e-15)
    index = positions(pools.train, tiny.train_images)
    noise = pools.provenance["train_label_noise"]
    assert noise == pytest.approx((said[index] != tiny.train_labels[index]).mean())
    assert (noise > 0) == (labels != "official")
    assert ("cifar10n_sha256" in pools.provenance) == (people or labels != "official")
    assert ("cifar10h_sha256" in pools.provenance) == people


def test_cifar10h_trains_on_the_test_images(folder, written):
    _, tiny, _, votes = written
    pools = Cifar10H(validation=0.3, test_images=60).pools(0, folder)
    train, held_out = (positions(pool, tiny.test_images) for pool in (pools.train, pools.validation))
    assert sorted(train + held_out) == list(range(100)) and len(held_out) == 30
    for pool, index in ((pools.train, train), (pools.validation, held_out)):
        assert pool.y.tolist() == tiny.test_labels[index].tolist()
        assert np.allclose(pool.p.numpy(), votes[index], rtol=0, atol=1e-15)
    assert positions(pools.test, tiny.train_images) == list(range(60))
    assert pools.test.y.tolist() == tiny.train_labels[:60].tolist()


def test_label_sets_are_those_of_the_reader():
    assert set(get_args(cifar_sources.LabelSet)) == {"official", *human.LABEL_SETS}
    assert set(cifar_sources.VOTERS) < set(human.LABEL_SETS)


# Reading ----------------------------------------------------------------------------------------


def test_human_files_are_asked_for_only_where_they_are_needed(tmp_path, folder):
    tiny_cifar.write_folder(tmp_path, "cifar10", "binary")
    assert Cifar10().pools(0, tmp_path).train.size == 180
    for source, file in (
        (Cifar10("worse_label"), "cifar10n.npz"),
        (Cifar10(people=True), "cifar10n.npz"),
        (Cifar10H(test_images=10), "cifar10h.npz"),
    ):
        assert f"has no {file}" in refusal(source.pools, 0, tmp_path)
    assert "has no CIFAR-100" in refusal(Cifar100().pools, 0, tmp_path)


def test_images_are_read_once(tmp_path, folder, monkeypatch):
    reads = []

    def read(name, data_dir):
        reads.append(name)
        return read_cifar(name, data_dir)

    read_cifar = cifar_sources.read_cifar
    monkeypatch.setattr(cifar_sources, "read_cifar", read)
    tiny_cifar.write_folder(tmp_path, "cifar10", "binary")
    monkeypatch.chdir(tmp_path)
    for data_dir in (tmp_path, str(tmp_path), ".", os.path.join(tmp_path, "")):
        for seed in range(2):
            Cifar10(few_shot=0.5).pools(seed, data_dir)
    assert reads == ["cifar10"]
    (tmp_path / "other").mkdir()
    tiny_cifar.write_folder(tmp_path / "other", "cifar10", "binary")
    before = Cifar10().pools(0, "other").provenance["digest"]
    assert reads == ["cifar10", "cifar10"]
    for file in sorted((tmp_path / "other").rglob("*.bin")):  # other images in place of these
        data = bytearray(file.read_bytes())
        data[1] ^= 255
        file.write_bytes(data)
    assert Cifar10().pools(0, "other").provenance["digest"] != before


# Bad fields -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "fields", "text"),
    [
        (Cifar10, {"labels": "worst_label"}, "labels = 'worst_label' is not allowed: must be official, aggre_label"),
        (Cifar10, {"labels": None}, "labels"),
        (Cifar10, {"people": 1}, "people = 1 is not allowed: must be True or False"),
        (Cifar10, {"few_shot": 0}, "few_shot = 0.0 is not allowed: must be in (0, 1]"),
        (Cifar100, {"few_shot": 1.1}, "few_shot"),
        (Cifar100, {"imbalance": 0.5}, "imbalance"),
        (Cifar10, {"validation": 0}, "validation = 0.0 is not allowed: must be in (0, 1): trainings are followed"),
        (Cifar10H, {"validation": 1}, "validation"),
        (Cifar10, {"test_images": 0}, "test_images"),
        (Cifar10, {"test_images": 10_001}, "test_images = 10001 is not allowed: must be an integer <= 10000"),
        (Cifar10H, {"test_images": None}, "test_images"),
        (Cifar10H, {"test_images": 50_001}, "<= 50000"),
        (Cifar10, {"few_shot": 0.1, "imbalance": 10.0}, "few_shot = 0.1 and imbalance = 10.0 are not allowed together"),
        (Cifar100, {"few_shot": 0.001}, "keeps no training images of class 0"),
        (Cifar100, {"imbalance": 500.0}, "keeps no training images of class 98"),
        (Cifar10H, {"validation": 0.9999}, "keeps no training images of class 0"),
        (Cifar10H, {"validation": 0.0001}, "holds out nothing of class 0"),
        (KnownImages, {"problem": problems.Digits()}, "problem"),
    ],
)
def test_refusals(kind, fields, text):
    assert text in refusal(kind, **fields)


def test_fields_are_set_from_text():
    kinds = {ImageSource: config.by_name(SOURCES)}
    assert override(KnownImages(), {"problem.samples": "500", "problem.entropy": "0.3"}, kinds) == KnownImages(
        Images(samples=500, entropy=0.3)
    )
    texts = {"labels": "worse_label", "people": "yes", "few_shot": "0.25", "test_images": "100"}
    found = override(Cifar10(), texts, kinds)
    assert found == Cifar10("worse_label", True, few_shot=0.25, test_images=100)
    assert override(found, {"test_images": "none"}, kinds).test_images is None
    assert "nearest: worse_label" in refusal(override, Cifar10(), {"labels": "worst_label"}, kinds)
    assert "nearest: problem.samples" in refusal(override, KnownImages(), {"problem.sample": "5"}, kinds)


# The real files ---------------------------------------------------------------------------------


@pytest.fixture
def real():
    """The folder that KDSIM_DATA names, with CIFAR-10 and both files of human labels."""
    data_dir = os.environ.get("KDSIM_DATA")
    if not data_dir or not os.path.isdir(data_dir) or not places("cifar10", data_dir):
        pytest.skip("KDSIM_DATA names no folder with CIFAR-10")
    if not all(human.find_human(data_dir, file) for file in (human.CIFAR10H_FILE, human.CIFAR10N_FILE)):
        pytest.skip("KDSIM_DATA has no files of human labels")
    return data_dir


@pytest.mark.slow
def test_real_images_with_human_labels(real):
    pools = Cifar10("worse_label", people=True, few_shot=0.1).pools(0, real)
    assert [pools.train.size, pools.validation.size, pools.test.size] == [4500, 5000, 10_000]
    assert abs(pools.provenance["train_label_noise"] - 0.402) < 4.5 * (0.402 * 0.598 / 4500) ** 0.5
    assert abs(pools.test.mean_entropy - 0.15) < 0.01
    other_way = Cifar10H().pools(0, real)
    assert [other_way.train.size, other_way.validation.size, other_way.test.size] == [9000, 1000, 10_000]
    assert abs(other_way.train.mean_entropy - 0.15) < 0.02
    assert other_way.provenance["digest"] == pools.provenance["digest"]
