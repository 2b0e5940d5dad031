"""Files of tensors: safetensors that any program reads, bit for bit what was written; and those of kdsim 1."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from kdsim.files import Damaged, sha256
from kdsim.pickled_tensors import FORMAT, HEAD
from kdsim.tensors import read_checked, write_checked

VECTOR = torch.arange(24.0)
CONTENT = {
    "views": {"a": VECTOR[:6].view(2, 3), "b": VECTOR[6:], "again": VECTOR},
    "strides": [
        torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last),
        torch.randn(3, 4).T,
        torch.randn(3, 4, 5),
    ],
    "types": tuple(
        torch.tensor([1, 0, 1]).to(dtype)
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool)
    ),
    "odd": [torch.tensor(3.5), torch.zeros(0), torch.zeros(2, 0, 3), torch.tensor([math.nan, -0.0, math.inf])],
    "plain": [None, True, 2**80, 0.1, -0.0, math.inf, "\u00e4\ud800", "", ("a", ()), {1: 2.5, "x": {}}],
}


def same(one: Any, other: Any) -> bool:
    """Bit for bit, types and the order of strides included."""
    if isinstance(one, torch.Tensor):
        bits = [each.contiguous().reshape(-1).view(torch.uint8) for each in (one, other)]
        return (
            one.dtype == other.dtype
            and one.shape == other.shape
            and torch.equal(*bits)
            and strides(one) == strides(other)
        )
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and repr(one) == repr(other)


def strides(tensor: torch.Tensor) -> tuple[int, ...] | None:
    """Of a tensor that fills its memory."""
    order = sorted(range(tensor.dim()), key=lambda axis: -tensor.stride(axis))
    return tensor.stride() if tensor.numel() and tensor.permute(order).is_contiguous() else None


def test_what_is_written_is_read_bit_for_bit(tmp_path: Path) -> None:
    write_checked(tmp_path / "x.safetensors", CONTENT)
    assert same(CONTENT, read_checked(tmp_path / "x.safetensors"))


def test_any_program_reads_the_tensors(tmp_path: Path) -> None:
    write_checked(tmp_path / "x.safetensors", {"a": {"b": VECTOR}, "c": 3})
    assert torch.equal(load_file(tmp_path / "x.safetensors")["0"], VECTOR)


def test_two_files_of_one_content_are_the_same(tmp_path: Path) -> None:
    for name in "ab":
        write_checked(tmp_path / name, CONTENT)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_a_part_of_a_tensor_takes_the_room_of_the_part(tmp_path: Path) -> None:
    write_checked(tmp_path / "x", {"a": torch.zeros(10**6)[:4], "b": torch.zeros(1).expand(3)})
    assert (tmp_path / "x").stat().st_size < 1000


@pytest.mark.parametrize("value", [object(), b"x", {1, 2}, 1j, {(1, 2): 3}])
def test_what_is_neither_tensor_nor_plain_is_not_written(tmp_path: Path, value: object) -> None:
    with pytest.raises(TypeError, match="cannot hold a"):
        write_checked(tmp_path / "x", {"a": value})
    assert not (tmp_path / "x").exists()


def old(content: dict[str, Any]) -> bytes:
    """A file of kdsim 1."""
    stream = io.BytesIO()
    torch.save(content, stream)
    return HEAD + sha256(stream.getvalue()).encode() + b"\n" + stream.getvalue()


def test_files_of_kdsim_1_are_read(tmp_path: Path) -> None:
    content = {"a": {"b": VECTOR}, "c": (1, "x", None)}
    (tmp_path / "x.pt").write_bytes(old({"format": FORMAT, **content}))
    assert same(content, read_checked(tmp_path / "x.pt"))
    (tmp_path / "x.pt").write_bytes(old({"format": FORMAT, **content})[:-1])
    with pytest.raises(Damaged, match="is truncated or altered"):
        read_checked(tmp_path / "x.pt")
