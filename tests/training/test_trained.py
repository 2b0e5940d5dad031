"""Files of weights and checkpoints: whole or refused in one line, and never code."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tiny_training import LabelledImages, tiny
from torch.nn import functional

from kdsim.config import ConfigError, digest
from kdsim.files import StorageError
from kdsim.networks import build
from kdsim.pickled_tensors import FORMAT, HEAD
from kdsim.tensors import head_of, read_checked, write_checked
from kdsim.training import TrainedNetwork

TRAINER = tiny(6, replicas=2)


@pytest.fixture(scope="module")
def network() -> TrainedNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(2)
        weights = build("resnet8", 3).state_dict()
    return TrainedNetwork("resnet8", 3, (0.5, 0.4, 0.3), (0.2, 0.2, 0.1), weights, "abc", 4, "def", {"loss": 1.5})


@pytest.fixture(scope="module")
def checkpoint() -> tuple[str, bytes]:
    """Name and content of the checkpoint of replica 0 after three steps."""
    import tempfile

    asked = iter(range(100))
    with tempfile.TemporaryDirectory() as folder:
        TRAINER.run(checkpoints=folder, stop=lambda: next(asked) >= 3)
        (file,) = Path(folder).iterdir()
        return file.name, file.read_bytes()


def refusal(folder: Path, content: bytes | None, name: str, trainer=TRAINER, **more) -> str:
    """The line with which a training refuses a checkpoint, which stays as it is."""
    file = folder / name
    if content is not None:
        file.write_bytes(content)
    seen: list[int] = []
    with pytest.raises(ConfigError) as caught:
        trainer.run(checkpoints=folder, progress=lambda done, total: seen.append(done), **more)
    assert seen == []  # refused before anything is computed
    assert content is None or (file.read_bytes() == content and list(folder.iterdir()) == [file])
    line = str(caught.value)
    assert "\n" not in line and len(line) < 1000
    return line


def checked(data: bytes) -> bytes:
    """The data behind a correct head."""
    return HEAD + hashlib.sha256(data).hexdigest().encode() + b"\n" + data


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


class Hostile:
    """Unpickled, it makes a folder."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self):
        return os.mkdir, (str(self.place),)


# Weights -------------------------------------------------------------------------------------------


def test_round_trip(tmp_path, network):
    network.save(tmp_path / "weights.safetensors")
    found = TrainedNetwork.load(tmp_path / "weights.safetensors")
    for name in ("network", "classes", "mean", "std", "training", "replica", "data", "scores"):
        assert getattr(found, name) == getattr(network, name)
    assert found.weights.keys() == network.weights.keys()
    assert all(torch.equal(found.weights[key], value) for key, value in network.weights.items())
    assert [file.name for file in tmp_path.iterdir()] == ["weights.safetensors"]


def test_the_module_is_the_network(network):
    """In evaluation mode, without gradients; torch's generator is left as it was."""
    before = torch.get_rng_state()
    module = network.module()
    assert torch.equal(torch.get_rng_state(), before)
    assert not module.training and not any(parameter.requires_grad for parameter in module.parameters())
    plain = build("resnet8", 3).eval()
    plain.load_state_dict(network.weights)
    images = torch.arange(2 * 3 * 32 * 32).remainder(251).to(torch.uint8).reshape(2, 3, 32, 32)
    mean, std = (torch.tensor(values)[:, None, None] for values in (network.mean, network.std))
    expected = plain((images / 255 - mean) / std)
    torch.testing.assert_close(module(network.normalisation(images)), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("changes", [{"network": "resnet20"}, {"classes": 4}, {"weights": {}}])
def test_weights_of_another_network_are_refused(network, changes):
    with pytest.raises(ConfigError, match=r"the weights are not those of a resnet\w+ with \d classes: ") as caught:
        replace(network, **changes).module()
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_a_checkpoint_is_no_network(tmp_path, checkpoint, network):
    (tmp_path / "x.safetensors").write_bytes(checkpoint[1])
    with pytest.raises(
        ConfigError, match=r"x.safetensors is not a trained network: it has data, replica, seconds, training, walk"
    ):
        TrainedNetwork.load(tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match=r"y.safetensors cannot be read: No such file"):
        TrainedNetwork.load(tmp_path / "y.safetensors")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, network, monkeypatch):
    path = tmp_path / "weights.safetensors"
    network.save(path)
    before = path.read_bytes()

    def full(number: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kdsim.files.os.fsync", full)
    with pytest.raises(StorageError, match=r"weights\.safetensors' cannot be written: No space left"):
        replace(network, replica=5).save(path)
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


# Damage --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "cut", [0, 1, len(HEAD) - 1, len(HEAD), len(HEAD) + 10, len(HEAD) + 64, len(HEAD) + 65, 200, -2000, -1]
)
def test_a_truncated_checkpoint_is_refused(tmp_path, checkpoint, cut):
    name, content = checkpoint
    line = refusal(tmp_path, content[:cut], name)
    assert name in line and "delete it to start over" in line


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> tuple[Path, bytes]:
    path = tmp_path_factory.mktemp("small") / "small.safetensors"
    write_checked(path, {"values": torch.arange(40.0), "name": "x"})
    return path, path.read_bytes()


DAMAGE = ["flip", "cut", "add", "swap"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255), kind=st.sampled_from(DAMAGE))
@example(where=0.0, flip=1, kind="flip")
@example(where=0.999999, flip=128, kind="flip")
def test_no_change_goes_unnoticed(small, where, flip, kind):
    """One byte altered, the end cut off, something appended, or two halves swapped."""
    path, content = small
    position = int(where * len(content))
    damaged = {
        "flip": content[:position] + bytes([content[position] ^ flip]) + content[position + 1 :],
        "cut": content[:position],
        "add": content + bytes([flip]) * (1 + position),
        "swap": content[position:] + content[:position],
    }[kind]
    path.write_bytes(damaged)
    if damaged == content:  # swapped at 0
        assert read_checked(path)["name"] == "x"
        return
    with pytest.raises(ConfigError) as caught:
        read_checked(path)
    assert "\n" not in str(caught.value) and "delete it to start over" in str(caught.value)


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_behind_a_correct_head_no_reader_breaks(small, where, flip):
    """Whoever can write the digest can write anything: it is read as tensors and plain values, or refused."""
    path, content = small
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    text = json.loads(header.pop("__metadata__")["kdsim"])["content"].encode()
    parts = [json.dumps(header).encode(), text, content[8 + length :]]
    place = int(where * sum(map(len, parts)))
    for number, part in enumerate(parts):
        if 0 <= place < len(part):
            parts[number] = part[:place] + bytes([part[place] ^ flip]) + part[place + 1 :]
        place -= len(part)
    try:
        header = json.loads(parts[0])
        head = head_of(header, parts[1].decode("latin-1"), parts[2])
    except (ValueError, TypeError):
        return
    path.write_bytes(head + parts[2])
    try:
        found = read_checked(path)
    except ConfigError as error:
        assert "\n" not in str(error) and str(path) in str(error)
    else:
        assert isinstance(found, dict)


@pytest.mark.parametrize(
    "wrapped",
    [lambda hostile: pickle.dumps(hostile, protocol=2), saved, lambda h: saved({"format": FORMAT, "walk": h})],
)
def test_no_code_in_a_file_is_run(tmp_path, checkpoint, wrapped):
    """A pickle that makes a folder, behind a correct digest; plain unpickling does make it."""
    place = tmp_path / "made"
    content = wrapped(Hostile(place))
    (tmp_path / "checkpoints").mkdir()
    assert "holds more than tensors and plain values" in refusal(
        tmp_path / "checkpoints", checked(content), checkpoint[0]
    )
    assert not place.exists()
    pickle.loads(pickle.dumps(Hostile(place)))
    assert place.exists()


# Files of something else ---------------------------------------------------------------------------


def test_foreign_files_are_refused(tmp_path, checkpoint):
    name, content = checkpoint
    plain = {"training": digest(TRAINER), "replica": 0, "walk": {}}
    for found, expected in (
        (saved(plain), "not a file of kdsim"),
        (b"", "not a file of kdsim"),
        (content[9:], "not a file of kdsim"),
        (b"\x00" * len(content), "not a file of kdsim"),
        (checked(saved(torch.zeros(3))), "has another format: read it"),
        (checked(saved(plain | {"format": FORMAT + 1})), "has another format: read it"),
        (checked(saved(plain | {"format": FORMAT})), "is not a checkpoint, it has training, replica, walk: delete it"),
    ):
        assert expected in refusal(tmp_path, found, name)


def test_a_folder_in_place_of_the_file(tmp_path, checkpoint):
    (tmp_path / checkpoint[0]).mkdir()
    assert refusal(tmp_path, None, checkpoint[0]).endswith("cannot be read: Is a directory")


def test_a_file_in_place_of_the_folder(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match=r"checkpoints = '.*file' cannot be written: File exists"):
        TRAINER.run(checkpoints=tmp_path / "file")


def test_checkpoints_of_something_else_are_refused(tmp_path, checkpoint):
    """Of another training, another replica, or the weights of this one: each is whole, and the digest is right."""
    name, content = checkpoint
    other = replace(TRAINER, seed=4)
    line = refusal(tmp_path, content, f"{digest(other)}-r000.safetensors", trainer=other)
    assert f"is of training '{digest(TRAINER)}', this is '{digest(other)}': delete it to start over" in line
    for file in tmp_path.iterdir():
        file.unlink()
    assert "is of replica '0', this is '1'" in refusal(tmp_path, content, name.replace("r000", "r001"))
    for file in tmp_path.iterdir():
        file.unlink()
    path = tmp_path / name
    write_checked(path, {"training": digest(TRAINER), "data": "x", "replica": 0, "weights": {}})
    assert "is not a checkpoint" in refusal(tmp_path, path.read_bytes(), name)
    path.write_bytes(content)
    found = read_checked(path)
    found["walk"] = {**found["walk"], "parameters": torch.zeros(1, 5)}
    assert "the stored state of replica 0 is not one" in refusal_of_state(tmp_path, found, name)


def refusal_of_state(folder: Path, content: dict, name: str) -> str:
    """As `refusal`, of a state that is read but does not fit."""
    write_checked(folder / name, content)
    with pytest.raises(ConfigError) as caught:
        TRAINER.run(checkpoints=folder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.slow
def test_data_that_changed_are_noticed(tmp_path):
    """Whatever the provenance says is part of it: of CIFAR, human labels too."""
    trainer = tiny(6, labelled=True)
    assert isinstance(trainer.data, LabelledImages)
    for text in ("one", "two"):
        (tmp_path / text).mkdir()
        (tmp_path / text / "note").write_text(text)
    asked = iter(range(100))
    stored = tmp_path / "checkpoints"
    trainer.run(checkpoints=stored, data_dir=tmp_path / "one", stop=lambda: next(asked) >= 2)
    name = f"{digest(trainer)}-r000.safetensors"
    assert "is of data '" in refusal(stored, (stored / name).read_bytes(), name, trainer, data_dir=tmp_path / "two")
    assert trainer.run(checkpoints=stored, data_dir=tmp_path / "one") is not None


def test_stored_weights_are_those_that_were_scored(tmp_path):
    """Saved and read back, the network has the scores on the test images that the record says."""
    trainer = tiny(4)
    trained = trainer.run()
    trained.networks[0].save(tmp_path / "weights.safetensors")
    found = TrainedNetwork.load(tmp_path / "weights.safetensors")
    assert (found.training, found.replica) == (digest(trainer), 0)
    pools, module = trainer.pools(), found.module()
    for pool, scores in ((pools.test, trained.record.test), (pools.validation, found.scores)):
        log_probs = torch.log_softmax(module(found.normalisation(pool.x)), -1)
        assert float(scores["loss"]) == pytest.approx(functional.nll_loss(log_probs, pool.y).item(), rel=1e-5)
        assert float(scores["accuracy"]) == pytest.approx((log_probs.argmax(-1) == pool.y).double().mean().item())
