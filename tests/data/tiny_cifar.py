"""CIFAR in small: the official containers byte by byte as their authors wrote them, with a few images in each.

The official pickles come from Python 2, whose opcodes no pickler of Python 3 writes: `Python2` spells them out.
"""

import hashlib
import io
import struct
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from kdsim.data import cifar

SIZES = {"cifar10": (50, 20), "cifar100": (200, 100)}


class Tiny(NamedTuple):
    """Images (N, 3, 32, 32) uint8 and balanced labels (N,)."""

    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def make(name):
    rng = np.random.default_rng(len(name))
    classes = len(cifar.DATA_SETS[name].classes)
    arrays = []
    for size in SIZES[name]:
        arrays.append(rng.integers(0, 256, (size, 3, 32, 32), dtype=np.uint8))
        arrays.append(rng.permutation(np.arange(size) % classes))
    return Tiny(*arrays)


# Pickles of Python 2 ------------------------------------------------------------------------


def py2(value):
    """Opcodes of a value, protocol 2."""
    if isinstance(value, dict):
        return b"}(" + b"".join(py2(item) for pair in value.items() for item in pair) + b"u"
    if isinstance(value, list):
        return b"](" + b"".join(map(py2, value)) + b"e"
    if isinstance(value, int):
        return b"K" + bytes([value]) if value < 256 else b"J" + struct.pack("<i", value)
    if isinstance(value, bytes):
        return b"U" + bytes([len(value)]) + value if len(value) < 256 else b"T" + struct.pack("<i", len(value)) + value
    rows, columns = value.shape
    dtype = b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    return made + b"(K\x01" + py2(rows) + py2(columns) + b"\x86" + dtype + b"\x89" + py2(value.tobytes()) + b"tb"


def py2_dumps(value):
    return b"\x80\x02" + py2(value) + b"."


# Containers ---------------------------------------------------------------------------------


def members(name, kind, tiny=None):
    """Content of each official file."""
    tiny = make(name) if tiny is None else tiny
    data_set = cifar.DATA_SETS[name]
    layout = next(layout for layout in data_set.layouts if layout.kind == kind)
    found = {}
    for files, images, labels in (
        (layout.train, tiny.train_images, tiny.train_labels),
        (layout.test, tiny.test_images, tiny.test_labels),
    ):
        for file, pixels, numbers in zip(
            files, np.array_split(images, len(files)), np.array_split(labels, len(files)), strict=True
        ):
            found[file] = (_python_batch if kind == "python" else _binary_batch)(name, pixels, numbers)
    class_names = [text.encode() for text in data_set.classes]
    if kind == "binary":
        found[layout.names] = b"\n".join(class_names) + b"\n\n"
    elif name == "cifar10":
        found[layout.names] = py2_dumps({b"num_cases_per_batch": 10000, b"label_names": class_names, b"num_vis": 3072})
    else:
        found[layout.names] = py2_dumps({b"fine_label_names": class_names, b"coarse_label_names": [b"fish"]})
    return layout, found


def _python_batch(name, images, labels):
    labels = labels.tolist()
    names = [b"image_%d.png" % number for number in range(len(labels))]
    batch = {b"batch_label": b"batch 1 of 5", b"data": images.reshape(len(images), -1), b"filenames": names}
    if name == "cifar10":
        return py2_dumps({b"labels": labels, **batch})
    return py2_dumps({b"fine_labels": labels, b"coarse_labels": [label // 5 for label in labels], **batch})


def _binary_batch(name, images, labels):
    columns = [labels[:, None]] if name == "cifar10" else [labels[:, None] // 5, labels[:, None]]
    return np.concatenate([*columns, images.reshape(len(images), -1)], 1).astype(np.uint8).tobytes()


def pack(path, folder, found):
    """Write a tar.gz with the members in a folder."""
    with tarfile.open(path, "w:gz") as archive:
        top = tarfile.TarInfo(folder)
        top.type = tarfile.DIRTYPE
        archive.addfile(top)
        for member, data in found.items():
            item = tarfile.TarInfo(f"{folder}/{member}")
            item.size = len(data)
            archive.addfile(item, io.BytesIO(data))


def write_archive(data_dir, name, kind, tiny=None):
    layout, found = members(name, kind, tiny)
    path = Path(data_dir) / layout.archive
    pack(path, layout.folder, found)
    return path


def write_folder(data_dir, name, kind, tiny=None):
    layout, found = members(name, kind, tiny)
    folder = Path(data_dir) / layout.folder
    folder.mkdir()
    for member, data in found.items():
        (folder / member).write_bytes(data)
    return folder


def encoded(image, form="PNG"):
    """PNG or JPEG bytes of an image (3, 32, 32)."""
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(buffer, form)
    return buffer.getvalue()


def write_parquet(folder, name, form="PNG", shards=1, tiny=None):
    tiny = make(name) if tiny is None else tiny
    Path(folder).mkdir(parents=True, exist_ok=True)
    for split, images, labels in (("train", *tiny[:2]), ("test", *tiny[2:])):
        for number, rows in enumerate(np.array_split(np.arange(len(labels)), shards)):
            column = [{"bytes": encoded(images[row], form), "path": f"{row:05d}.png"} for row in rows]
            table = {"img": pa.array(column, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))}
            if name == "cifar10":
                table["label"] = labels[rows]
            else:
                table |= {"fine_label": labels[rows], "coarse_label": labels[rows] // 5}
            pq.write_table(pa.table(table), Path(folder) / f"{split}-{number:05d}-of-{shards:05d}.parquet")


# What the readers expect ----------------------------------------------------------------------


def expect_small(monkeypatch):
    """Sizes of the tiny sets instead of the official ones."""
    for name, (train, test) in SIZES.items():
        monkeypatch.setitem(cifar.DATA_SETS, name, replace(cifar.DATA_SETS[name], train_size=train, test_size=test))


def expect_digest(monkeypatch, name, path):
    """The MD5 of the archive at `path` instead of the official one."""
    data_set, md5 = cifar.DATA_SETS[name], hashlib.md5(Path(path).read_bytes()).hexdigest()
    layouts = tuple(
        replace(layout, md5=md5) if layout.archive == Path(path).name else layout for layout in data_set.layouts
    )
    monkeypatch.setitem(cifar.DATA_SETS, name, replace(data_set, layouts=layouts))
