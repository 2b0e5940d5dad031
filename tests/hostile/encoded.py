"""Parts of data files that are not what they should be: pickles, records, images in parquet, arrays in npz files."""

from __future__ import annotations

import io
import os
import pickle
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from random import Random

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from hostile import texts
from hostile.harness import Box

# Pickles and records ---------------------------------------------------------------------------------


class Planted:
    """Its pickle calls a function that makes a file."""

    def __init__(self, function: Callable, *arguments: object) -> None:
        self.what = function, arguments

    def __reduce__(self) -> tuple:
        return self.what


def bad_pickle(random: Random, data: bytes, box: Box) -> tuple[bytes, str]:
    kind = random.choice(("planted", "planted", "memory", "hash", "depth", "frame", "number", "values", "opcodes"))
    if kind == "planted":
        touch = f"touch '{box.marker}'"
        planted = random.choice(
            (
                Planted(os.system, touch), Planted(eval, f"open({str(box.marker)!r}, 'w')"), Planted(open,
                str(box.marker), "w"),
                Planted(exec, f"open({str(box.marker)!r}, 'w')"), Planted(os.mkdir, str(box.marker)),
                Planted(np.save, str(box.marker), 1),
            )
        )  # fmt: skip
        return pickle.dumps(
            random.choice((planted, {b"data": planted}, {planted: 1}, [planted])), random.randrange(6)
        ), kind
    if kind == "memory":  # a reader that keeps a list of what it remembers makes one of 2^31 entries
        return b"\x80\x02}r" + struct.pack("<I", random.choice((2**31 - 1, 2**32 - 1, 10**6))) + b".", kind
    if kind == "hash":  # ((((..), (..)), ..): 2^60 parts, all of them the same two
        doubled = b"".join(b"q" + bytes([n]) + b"h" + bytes([n]) + b"\x86" for n in range(60))
        return b"\x80\x02})" + doubled + b"K\x01s.", kind
    if kind == "depth":
        return b"\x80\x02" + random.choice((b"(", b"]", b"}")) * 200_000 + random.choice(
            (b"e" * 200_000, b"t" * 200_000, b"")
        ) + b".", kind
    if kind == "frame":
        opcode = random.choice((b"\x95", b"\x8e", b"\x8d", b"\x96"))
        return b"\x80\x05" + opcode + struct.pack("<Q", random.choice((2**40, 2**62, 2**64 - 1))) + b"}.", kind
    if kind == "number":
        return b"\x80\x02}U\x04dataI" + b"9" * 100_000 + b"\ns.", kind
    if kind == "values":
        odd = [
            None,
            -1,
            256,
            2.5,
            b"x",
            "x",
            [],
            {},
            (),
            True,
            10**30,
            np.arange(3),
            np.zeros((2, 3072)),
            np.zeros((5, 3072), np.uint8),
        ]
        entries = {
            key: random.choice(odd) for key in ("data", "labels", "label_names", "fine_labels") if random.randrange(2)
        }
        if random.randrange(2):
            entries["labels"] = [random.choice(odd[:9]) for _ in range(5)]
        return pickle.dumps({key.encode(): value for key, value in entries.items()}, 2), f"values {list(entries)}"
    found = bytearray(data)
    for _ in range(random.randrange(1, 6)):  # instructions lie in the first and last bytes, pixels between them
        found[random.choice((random.randrange(min(200, len(found))), -random.randrange(1, min(200, len(found)))))] = (
            random.choice(b"().]}eosutabRcq\x85\x86\x87\x81\x82K\x8aUXTQPi02dlpgjrLFNIV")
        )
    return bytes(found), kind


def bad_records(random: Random, data: bytes, box: Box) -> tuple[bytes, str]:
    kind = random.choice(("more", "less", "other labels", "none", "names"))
    if kind == "more":
        return data + data[: 3073 * random.randrange(1, 3)], kind
    if kind == "less":
        return data[: 3073 * random.randrange(5)], kind
    if kind == "other labels":
        found = bytearray(data)
        found[::3073] = bytes(random.choice((0, 9, 10, 255)) for _ in found[::3073])
        return bytes(found), kind
    return (b"" if kind == "none" else b"\xff\x00 a b c\n" * random.randrange(4)), kind


# Parquet with images -----------------------------------------------------------------------------------


def _png(width: int, height: int, mode: int, pixels: bytes, more: bytes = b"") -> bytes:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, mode, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + more
        + chunk(b"IDAT", zlib.compress(pixels, 9))
        + chunk(b"IEND", b"")
    )


def _image(random: Random, box: Box) -> tuple[bytes | None, str]:
    """An image that is none, or a huge one."""
    pixels = np.zeros((32, 32, 3), np.uint8)
    kind = random.choice(
        ("30000 x 30000", "a bomb", "a bomb in a text", "mode", "none", "empty", "other", "changed", "GIF", "negative")
    )
    if kind == "30000 x 30000":
        side = random.choice((30_000, 15_000, 2**31 - 1))
        return _png(side, side, 2, bytes(1000)), kind
    if kind == "a bomb":
        return _png(32, 32, 2, bytes(50_000_000)), kind
    if kind == "a bomb in a text":
        text = b"iCCP" if random.randrange(2) else b"zTXt"
        data = b"x\0\0" + zlib.compress(bytes(80_000_000), 9)
        chunk = struct.pack(">I", len(data)) + text + data + struct.pack(">I", zlib.crc32(text + data))
        return _png(32, 32, 2, bytes(97 * 32), chunk), kind
    if kind == "negative":
        return _png(0, 0, 2, b""), kind
    if kind in ("none", "empty"):
        return (None if kind == "none" else b""), kind
    stream = io.BytesIO()
    form = "GIF" if kind == "GIF" else random.choice(("PNG", "JPEG"))
    image = Image.fromarray(pixels).convert(
        random.choice(("L", "CMYK")) if kind == "mode" and form == "JPEG" else "RGB"
    )
    image = image.resize((31, 33)) if kind == "other" else image
    image.save(stream, form)
    data = stream.getvalue()
    return texts.changed(random, data) if kind == "changed" else (data, f"{kind} {form}")


def bad_parquet(random: Random, data: bytes, box: Box) -> tuple[bytes, str]:
    table = pq.read_table(io.BytesIO(data))
    images, labels = table.column("img").to_pylist(), table.column("label").to_pylist()
    if random.randrange(2):
        row = random.randrange(len(images))
        found, kind = _image(random, box)
        images[row] = {"bytes": found, "path": "x"}
        columns = {
            "img": pa.array(images, pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            "label": pa.array(labels),
        }
    else:
        kind = random.choice(
            ("nulls", "floats", "texts", "large", "no images", "lists", "rows", "twice", "extension", "no labels")
        )
        many = [3] * random.choice((1, 5_000_000))
        columns = {
            "nulls": {"img": table.column("img"), "label": pa.array([None] * len(labels), pa.int64())},
            "floats": {"img": table.column("img"), "label": pa.array([float("nan")] * len(labels))},
            "texts": {"img": table.column("img"), "label": pa.array(["1"] * len(labels))},
            "large": {"img": table.column("img"), "label": pa.array([2**63 + label for label in labels], pa.uint64())},
            "no images": {"img": pa.nulls(len(labels)), "label": pa.array(labels)},
            "lists": {"img": pa.array([[1]] * len(labels)), "label": pa.array(labels)},
            "rows": {"img": pa.array([None] * len(many), pa.struct([("bytes", pa.binary())])), "label": pa.array(many)},
            "twice": {"img": table.column("img"), "label": pa.array(labels[::-1])},
            "extension": {"img": pa.array([{"bytes": 1}] * len(labels)), "label": pa.array(labels)},
            "no labels": {"img": table.column("img")},
        }[kind]
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream, compression=random.choice(("snappy", "gzip", "zstd", "none")))
    return stream.getvalue(), kind


# Human labels ------------------------------------------------------------------------------------------


def bad_npz(random: Random, data: bytes, box: Box) -> tuple[bytes, str]:
    if random.randrange(3) == 0:
        return texts.changed(random, data)
    with np.load(io.BytesIO(data)) as found:
        arrays = dict(found)
    name = random.choice(list(arrays))
    whole = arrays[name]
    kind = random.choice(("pickle", "header", "values", "type", "shape", "missing", "twice", "bomb", "two names"))
    if kind == "values":
        value = random.choice((float("nan"), float("inf"), -1, 10, 2**62, 0))
        with np.errstate(all="ignore"):
            arrays[name] = np.where(np.arange(whole.size).reshape(whole.shape) == 3, value, whole).astype(
                whole.dtype if random.randrange(2) and np.isfinite(value) else float
            )
    elif kind == "type":
        arrays[name] = whole.astype(random.choice(("f2", "c16", "u1", ">i4", "U3", "S2", "M8[s]", "?", "O", "u8")))
    elif kind == "shape":
        arrays[name] = random.choice((whole[:-1], whole.T, whole.ravel()[:0], np.array(3), whole[None]))
    elif kind == "missing":
        del arrays[name]
    if kind in ("values", "type", "shape", "missing"):
        return npz(arrays), f"{name}: {kind}"
    stream = io.BytesIO()
    with (
        warnings.catch_warnings(action="ignore"),
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive,
    ):
        for each, array in arrays.items():
            part = io.BytesIO()
            np.save(part, array)
            entry = part.getvalue()
            if each == name:
                entry = _bad_entry(random, kind, entry, box)
            archive.writestr(f"{each}.npy", entry)
            if each == name and kind in ("twice", "two names"):
                archive.writestr(
                    f"{each}.npy" if kind == "twice" else each, bytes(200_000_000) if random.randrange(2) else b"x"
                )
    return stream.getvalue(), f"{name}: {kind}"


def _bad_entry(random: Random, kind: str, entry: bytes, box: Box) -> bytes:
    if kind == "pickle":
        stream = io.BytesIO()
        np.save(stream, np.array([Planted(os.system, f"touch '{box.marker}'")], object), allow_pickle=True)
        return stream.getvalue()
    if kind == "header":
        header = random.choice(
            (
                "{'descr': '<i8', 'fortran_order': False, 'shape': (10000000000000,), }",
                "{'descr': '|O', 'shape': (1,)}",
                "{'descr': '<i8', 'fortran_order': False, 'shape': (-1,), }", "(" * 5000, "-" * 9000 + "1",
                "[" * 99 + "]" * 99,
                "{'descr': '|V2147483647', 'fortran_order': False, 'shape': (1000000,), }",
                "__import__('os').system('id')",
                "{'descr': [('a', '<i8')] * 10**9, 'fortran_order': False, 'shape': (1,), }", "{'descr': '<i8'",
                "\x00\xff",
                "{'descr': '<i8', 'fortran_order': False, 'shape': (0, 99999999999999999999), }",
            )
        )  # fmt: skip
        text = header.encode("latin-1") + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(80)
    return bytes(300_000_000) if kind == "bomb" else entry


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)
    return stream.getvalue()
