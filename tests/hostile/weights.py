"""Surface: states of interrupted runs, weights, fitted teachers: damaged, or the right checksum on wrong content."""

from __future__ import annotations

import contextlib
import copy
import io
import os
import pickle
import shutil
import signal
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

import torch

from hostile import texts
from hostile.encoded import Planted
from hostile.harness import Box, Case
from hostile.settings import TINY
from kdsim.cli.run import load_study, settings_of
from kdsim.files import sha256
from kdsim.pickled_tensors import HEAD
from kdsim.study import runner
from kdsim.study.runner import Progress
from kdsim.tensors import read_checked, write_checked

IMAGES = ["data.problem.samples=60", "data.problem.validation_samples=20", "data.problem.test_samples=20"]
TRAIN = ["network=resnet8", "data=known-images", "recipe.batch_size=20", "evaluations=2", *IMAGES]
DISTILL = [
    "teacher=resnet8",
    "student=resnet8",
    "data=known-images",
    "recipe.batch_size=20",
    "teacher_recipe.batch_size=20",
    *IMAGES,
]
SIMULATED = ["steps=2000", "engine=torch"]


class Runs(NamedTuple):
    """Results folders, and with which command a run goes on in each, from which files."""

    folders: dict[str, tuple[Path, list[str]]]


def prepare(folder: Path) -> Runs:
    """An interrupted simulation, an interrupted training, and a finished teacher whose student is missing."""
    found = {}
    for name, target, settings in (
        ("simulation", TINY, SIMULATED),
        ("training", "train", TRAIN),
        ("teacher", "distill", DISTILL),
    ):
        out = folder / name
        study = load_study(target, settings_of(settings), quick=True)
        with contextlib.suppress(runner.Interrupted):
            runner.run(study, str(out), progress=None if name == "teacher" else _interruption())
        if name == "teacher":
            _forget_student(out, study)
        found[name] = (out, ["run-study", target, "--quick", *[part for text in settings for part in ("--set", text)]])
        assert any(out.rglob("*.safetensors")), name
    return Runs(found)


def _interruption() -> Callable[[Progress], None]:
    """Progress that interrupts the run once; a second time would end the process."""
    told: list[int] = []

    def interrupt(progress: Progress) -> None:
        if progress.step > 0 and not told:
            told.append(progress.step)
            signal.raise_signal(signal.SIGINT)

    return interrupt


def _forget_student(out: Path, study: Any) -> None:
    from kdsim.config import digest

    for cell in study.cells()[1:]:
        shutil.rmtree(out / "cells" / digest(cell), ignore_errors=True)


def case(random: Random, runs: Runs, box: Box) -> Case:
    """A results folder in which one such file is bad, and the command that goes on from it."""
    name = random.choice(list(runs.folders))
    folder, arguments = runs.folders[name]
    shutil.copytree(folder, box.out)
    file = random.choice(sorted(box.out.rglob("*.safetensors")))
    kind = random.randrange(4)
    if kind == 0:
        data, what = texts.changed(random, file.read_bytes())
        file.write_bytes(data)
    elif kind == 1:
        data, what = _raw(random, box)
        file.write_bytes(HEAD + sha256(data).encode() + b"\n" + data)
    else:
        content = read_checked(file)
        what = _changed(random, content)
        file.unlink()
        try:
            write_checked(file, content)
        except (TypeError, ValueError, RuntimeError, pickle.PicklingError, AttributeError, NotImplementedError):
            shutil.copy(folder / file.relative_to(box.out), file)
            what = "nothing"
    return Case([*arguments, "--out", str(box.out)], f"{name}, {file.name}: {what}")


# Content with the right checksum ------------------------------------------------------------------------


def _tensors(random: Random, like: Any) -> tuple[Any, str]:
    """A tensor that is not what it should be, or none."""
    found = like if isinstance(like, torch.Tensor) else torch.ones(3)
    makers: dict[str, Callable[[], Any]] = {
        "NaN": lambda: torch.full_like(found, float("nan")) if found.is_floating_point() else -found,
        "huge numbers": lambda: found * 1e38 if found.is_floating_point() else found - 10**9,
        "other shape": lambda: found[None],
        "empty": lambda: found.flatten()[:0],
        "double": lambda: found.double(),
        "whole numbers": lambda: found.long(),
        "complex": lambda: found.to(torch.complex64),
        "a million million": lambda: torch.zeros(1).expand(10**12),
        "sparse": lambda: found.reshape(-1).float().to_sparse(),
        "meta": lambda: torch.empty(found.shape, device="meta"),
        "parameter": lambda: torch.nn.Parameter(found.float()),
        "a view": lambda: found.expand(2, *found.shape)[0],
        "list": lambda: found.flatten()[:5].tolist(),
    }
    name = random.choice(list(makers))
    try:
        return makers[name](), name
    except (RuntimeError, NotImplementedError):  # some types have no such form
        return None, "None"


def _changed(random: Random, content: Any, depth: int = 0) -> str:
    """Change something in a dictionary or list; what was done, in words."""
    keys = list(content) if isinstance(content, dict) else list(range(len(content)))
    if not keys:
        return "nothing"
    key = random.choice(keys)
    inner = content[key]
    if isinstance(inner, (dict, list)) and inner and random.randrange(4):
        content[key] = copy.copy(inner)
        return f"{key}: {_changed(random, content[key], depth + 1)}"
    kind = random.randrange(5)
    if kind == 0 and isinstance(content, dict):
        del content[key]
        return f"no {key}"
    if kind == 1 and isinstance(content, dict):
        content[random.choice(("x", "__class__", 5, None, ("a", 1)))] = texts.value(random)
        return "one key more"
    if kind == 2:
        content[key] = texts.value(random)
        return f"{key} = {content[key]!r:.100}"
    content[key], what = _tensors(random, inner)
    return f"{key}: {what}"


# Files that torch did not write ---------------------------------------------------------------------------


def _raw(random: Random, box: Box) -> tuple[bytes, str]:
    """Bytes behind a right checksum: pickles that call functions, archives that unpack to more than they are."""
    planted = Planted(random.choice((os.system,)), f"touch '{box.marker}'")
    kind = random.choice(
        (
            "nothing",
            "old format",
            "planted",
            "planted in a zip",
            "bomb",
            "doubled",
            "memory",
            "numbers",
            "class",
            "no zip",
        )
    )
    if kind == "nothing":
        return b"", kind
    if kind == "no zip":
        return bytes(random.randrange(256) for _ in range(1000)), kind
    if kind in ("old format", "numbers", "class"):
        stream = io.BytesIO()
        content = {
            "old format": {"format": 1, "walk": torch.ones(3)},
            "numbers": [1, 2],
            "class": {"format": 1, 5: {6: OrderedDict()}},
        }
        torch.save(content[kind], stream, _use_new_zipfile_serialization=kind != "old format")
        return stream.getvalue(), kind
    if kind == "planted":
        return pickle.dumps(planted, random.choice((0, 2, 4))), kind
    if kind == "planted in a zip":
        return _zip(pickle.dumps({"format": 1, "walk": planted}, 2)), kind
    if kind == "bomb":
        return _zip(b"\x80\x02}.", random.choice((300_000_000, 3_000_000))), kind
    if kind == "memory":
        return _zip(b"\x80\x02}r" + struct.pack("<I", 2**32 - 1) + b"."), kind
    part = random.choice((b"\x86", b"\x86", b"(h%ch%cl"))
    if part == b"\x86":  # ((..), (..)) and so on: as a key it is hashed
        doubled = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + part for n in range(60))
        ends = random.choice((b"K\x01s.", b"X\x01\x00\x00\x00a" + b"\x86q\xf0."))
        return _zip(b"\x80\x02})" + doubled + ends), kind
    doubled = b"".join(b"]q" + bytes([n + 1]) + b"(h" + bytes([n]) + b"h" + bytes([n]) + b"e" for n in range(60))
    head = b"\x80\x02}X\x06\x00\x00\x00formatK\x01sX\x08\x00\x00\x00training]q\x00"
    return _zip(head + doubled + b"s."), kind


def _zip(pickled: bytes, zeros: int = 0) -> bytes:
    """An archive as torch writes it, with this pickle."""
    stream = io.BytesIO()
    with zipfile.ZipFile(
        stream, "w", zipfile.ZIP_DEFLATED if zeros else zipfile.ZIP_STORED, compresslevel=9
    ) as archive:
        archive.writestr("archive/data.pkl", pickled + bytes(zeros))
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", bytes(12 + zeros))
    return stream.getvalue()
