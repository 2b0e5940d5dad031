"""Surface: files of a data folder: CIFAR archives, their pickles and records, parquet with images, human labels."""

from __future__ import annotations

import gzip
import hashlib
import io
import tarfile
import zlib
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import NamedTuple

import numpy as np
import tiny_cifar

from hostile import places, texts
from hostile.encoded import bad_npz, bad_parquet, bad_pickle, bad_records, npz
from hostile.harness import Box, Case
from kdsim.data import cifar
from kdsim.data.human import CLEAN, LABEL_SETS

SMALL = ["--quick", "--set", "network=resnet8", "--set", "data.validation=0.2", "--set", "data.test_images=10",
         "--set", "recipe.batch_size=8"]  # fmt: skip
CONTAINERS = ("python", "binary", "parquet")


class Files(NamedTuple):
    """A valid data folder of each container, as bytes by name, and the data sets in small."""

    folders: dict[str, dict[str, bytes]]
    human: dict[str, bytes]
    data_sets: dict[str, cifar.DataSet]


def prepare(folder: Path) -> Files:
    """Write the containers of CIFAR-10 in small. The sizes that kdsim expects become theirs, in this process."""
    found = {}
    for container in CONTAINERS:
        place = folder / container
        place.mkdir(parents=True)
        if container == "parquet":
            tiny_cifar.write_parquet(place, "cifar10")
        else:
            tiny_cifar.write_folder(place, "cifar10", container)
        found[container] = {
            str(path.relative_to(place)): path.read_bytes() for path in sorted(place.rglob("*")) if path.is_file()
        }
    data_sets = {}
    for name, (train, test) in tiny_cifar.SIZES.items():
        data_sets[name] = replace(cifar.DATA_SETS[name], train_size=train, test_size=test)
    return Files(found, _human(), data_sets)


def _human() -> dict[str, bytes]:
    tiny = tiny_cifar.make("cifar10")
    counts = np.eye(10, dtype=np.int64)[tiny.test_labels] * 40 + 1
    labels = dict.fromkeys((CLEAN, *LABEL_SETS), tiny.train_labels)
    return {
        "cifar10h.npz": npz({"counts": counts, "probs": counts / counts.sum(1, keepdims=True)}),
        "cifar10n.npz": npz(labels),
    }


def case(random: Random, files: Files, box: Box) -> Case:
    """A data folder with one thing wrong, and a command that reads it."""
    cifar.DATA_SETS.update(files.data_sets)
    container = random.choice(CONTAINERS)
    content = dict(files.folders[container])
    options, what = [f"data={random.choice(('cifar10', 'cifar10', 'cifar10', 'cifar100'))}"], container
    kind = random.randrange(4)
    if kind == 0:
        content |= files.human
        name = random.choice(list(files.human))
        content[name], done = bad_npz(random, content[name], box)
        options = ["data=cifar10h"] if name == "cifar10h.npz" else ["data=cifar10", "data.people=true"]
        what = f"{name}: {done}"
    elif kind == 1 and container != "parquet":
        content, what = _archive(random, container, content, box)
    else:
        name = random.choice(list(content))
        bad = {"python": bad_pickle, "binary": bad_records, "parquet": bad_parquet}[container]
        content[name], done = (bad if random.randrange(2) else _bad_bytes)(random, content[name], box)
        what = f"{name}: {done}"
    for name, data in content.items():
        path = box.data / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    what += _odd_place(random, box, list(content))
    if random.randrange(6) == 0:
        return Case(["data", "check", "--data-dir", str(box.data)], f"data check: {what}")
    arguments = ["show-study", "train", *SMALL, "--data-dir", str(box.data)]
    return Case(arguments + [part for option in options for part in ("--set", option)], f"{options}: {what}")


def _odd_place(random: Random, box: Box, names: list[str]) -> str:
    """Now and then a folder, a link or a pipe stands where a file should be."""
    if random.randrange(12):
        return ""
    path = box.data / random.choice(names)
    path.unlink()
    kind = random.choice(("folder", "huge", "loop", "link to /dev/zero", "pipe", "unreadable", "nothing"))
    places.put(path, kind)
    return f"; {path.name} is a {kind}"


def _bad_bytes(random: Random, data: bytes, box: Box) -> tuple[bytes, str]:
    return texts.changed(random, data)


# Archives -----------------------------------------------------------------------------------------


def _archive(random: Random, container: str, content: dict[str, bytes], box: Box) -> tuple[dict[str, bytes], str]:
    """A tar.gz, whose digest is the official one in two cases of three: as if the official file were so."""
    layout = next(each for each in cifar.DATA_SETS["cifar10"].layouts if each.kind == container)
    stream, (compression, done) = io.BytesIO(), (random.choice((1, 9)), "")
    with tarfile.open(fileobj=stream, mode="w:gz", compresslevel=compression) as archive:
        for name, data in content.items():
            for item, written in _members(random, name, data, box):
                archive.addfile(item, io.BytesIO(written))
                done += "" if item.isreg() and item.name == name else f"{item.name[:40]} type {item.type!r}; "
    packed = stream.getvalue()
    kind = random.randrange(5)
    if kind == 0:
        packed, more = texts.changed(random, packed)
        done += more
    elif kind == 1:
        plain, more = texts.changed(random, gzip.decompress(packed))
        packed, done = gzip.compress(plain, 1), done + f"{more} in the tar"
    elif kind == 2:
        packed, done = _tar_bomb(random, content), "a header of a gigabyte, or a gigabyte of zeros"
    if random.randrange(3):
        right = hashlib.md5(packed).hexdigest()
        layouts = tuple(
            replace(each, md5=right) if each is layout else each for each in cifar.DATA_SETS["cifar10"].layouts
        )
        cifar.DATA_SETS["cifar10"] = replace(cifar.DATA_SETS["cifar10"], layouts=layouts)
    return {layout.archive: packed}, f"{layout.archive}: {done}"


def _members(random: Random, name: str, data: bytes, box: Box) -> list[tuple[tarfile.TarInfo, bytes]]:
    """A member as it should be, or something else under its name or another."""
    item = tarfile.TarInfo(name)
    item.size = len(data)
    if random.randrange(6):
        return [(item, data)]
    other = tarfile.TarInfo(
        random.choice((str(box.marker), f"../../../{box.marker}", "./" + name, name + "/x", "a" * 300, "é", name))
    )
    other.type = random.choice(
        (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE, tarfile.REGTYPE)
    )
    other.linkname = random.choice(("/etc/passwd", "../../x", name, ""))
    planted = b"planted" if other.type == tarfile.REGTYPE else b""
    other.size = len(planted)
    return random.choice(
        ([(item, data), (other, planted)], [(other, planted)], [(other, planted), (item, data)], [(item, data)] * 2, [])
    )


def _tar_bomb(random: Random, content: dict[str, bytes]) -> bytes:
    """A little file that is large once it is unpacked."""
    large = 1 << 30
    item = tarfile.TarInfo(random.choice((next(iter(content)), "other")))
    item.size = random.choice((large, 8 * large, 150_000_000))
    item.type = random.choice((tarfile.REGTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE))
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(1 << 24)
    parts = [packer.compress(item.tobuf(tarfile.GNU_FORMAT))]
    parts += [packer.compress(zeros) for _ in range(random.choice((1, 48)))]
    return b"".join([*parts, packer.flush()])
