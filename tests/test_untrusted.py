"""Files that somebody else made: what is no plain file, or larger than it looks, is refused before it is read."""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path

import pytest
import torch

from kdsim.config import ConfigError
from kdsim.data.unpickle import unpickle
from kdsim.files import sha256
from kdsim.pickled_tensors import HEAD, LARGEST_PICKLE, require_plain, require_tensors
from kdsim.tensors import read_checked, write_checked
from kdsim.untrusted import read_file


def saved(content: object) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def packed(pickled: bytes, compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("archive/data.pkl", pickled)
        archive.writestr("archive/version", "3\n")
    return stream.getvalue()


def doubled(times: int, start: bytes, join: bytes) -> bytes:
    """Opcodes that leave ((..), (..)) of 2^times parts, all the same two."""
    return start + b"".join(b"q%ch%c" % (n, n) + join for n in range(times))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    content = {
        "a": torch.arange(3),
        "b": OrderedDict(x=torch.ones(2, 3).T, y=torch.zeros(0)),
        "c": (1, 2.5, None, "x", [True]),
    }
    require_plain(saved(content))
    require_tensors(content)
    write_checked(tmp_path / "x.safetensors", content)
    assert read_checked(tmp_path / "x.safetensors")["c"] == content["c"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no file of tensors"),
        (b"PK" + bytes(50), "no file of tensors"),
        (packed(bytes(10_000_000), zipfile.ZIP_DEFLATED), "it unpacks to"),
        (packed(pickle.dumps(os.system, 2)), "it names"),
        (packed(pickle.dumps(os.system, 4)), "STACK_GLOBAL"),
        (packed(b"\x80\x02}" + doubled(60, b")", b"\x86") + b"K\x01s."), f"more than {LARGEST_PICKLE:,} parts"),
        (packed(b"\x80\x02" + doubled(60, b"]", b"]q\xf0h\xf0(") + b"."), "without its"),
        (packed(b"\x80\x02" + b"".join(b"]q%c(h%ch%ce" % (n + 1, n, n) for n in range(1, 60)) + b"."),
        "refers to what"),
        (packed(b"\x80\x02]q\x00]q\x01h\x00ah\x00h\x01a."), "part of something else"),
        (packed(b"\x80\x02}X\x01\x00\x00\x00aK\x01a."), "does not take it"),
        (packed(b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n)RK\x00K\x01s."), "does not take it"),
        (saved({"a": torch.ones(3).to_sparse()}), "it names"),
        (saved({"a": torch.nn.Parameter(torch.ones(3))}), "it names"),
    ],
)  # fmt: skip
def test_what_is_not_plain_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        require_plain(data)
    file = tmp_path / "x.safetensors"
    file.write_bytes(HEAD + sha256(data).encode() + b"\n" + data)
    with pytest.raises(ConfigError, match="is not read"):
        read_checked(file)


def test_a_tensor_has_as_many_bytes_as_it_says(tmp_path: Path) -> None:
    data = saved({"format": 1, "a": [torch.zeros(1).expand(10**12)]})
    (tmp_path / "x.safetensors").write_bytes(HEAD + sha256(data).encode() + b"\n" + data)
    with pytest.raises(ConfigError, match="1,000,000,000,000 numbers"):
        read_checked(tmp_path / "x.safetensors")


def test_what_never_ends_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path / "pipe", "Not a regular file"),
        (Path("/dev/zero"), "Not a regular file"),
        (tmp_path, "directory"),
    ):
        with pytest.raises(OSError, match=message):
            read_file(path)
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", 1 << 40)
    with pytest.raises(OSError, match="at most 100"):
        read_file(tmp_path / "large", 100)


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02}" + doubled(60, b")", b"\x86") + b"K\x01s.",  # a key that takes for ever to hash
        b"\x80\x02}r\xff\xff\xff\xff.",  # a memory of 2^32 entries in Python's own reader
        b"\x80\x02}U\x04data" + doubled(60, b")", b"\x86") + b"s.",
    ],
)
def test_pickles_that_explode_take_no_time(data: bytes) -> None:
    try:
        found = unpickle(data, "here")
    except ConfigError as error:
        assert len(str(error)) < 200
    else:
        assert found.keys() <= {"data"}
