"""Make cifar10h.npz and cifar10n.npz from the files that their authors publish.

    git clone --depth 1 https://github.com/jcpeterson/cifar-10h
    git clone --depth 1 https://github.com/UCSC-REAL/cifar-10-100n
    python docs/examples/human_labels.py DIR --votes cifar-10h/data/cifar10h-counts.npy
    python docs/examples/human_labels.py DIR --labels cifar-10-100n/data/CIFAR-10_human.pt
    kdsim data check --data-dir DIR

DIR is the folder with CIFAR-10 that `--data-dir` names. CIFAR-10H (CC BY-NC-SA 4.0) has the votes of about 51 people
for each of the 10,000 test images, CIFAR-10N (CC BY-NC 4.0) three labellings of the 50,000 training images; both are in
the order of CIFAR-10's Python archive. Neither licence lets kdsim pass them on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

NAMES = ("clean_label", "aggre_label", "worse_label", "random_label1", "random_label2", "random_label3")


def write_votes(source: Path, folder: Path) -> Path:
    """cifar10h.npz: counts (10000, 10) integers, row i for test image i, and probs = counts / their row's sum."""
    counts = np.load(source, allow_pickle=False)
    file = folder / "cifar10h.npz"
    np.savez_compressed(file, counts=counts.astype(np.int64), probs=counts / counts.sum(1, keepdims=True))
    return file


def write_labels(source: Path, folder: Path) -> Path:
    """cifar10n.npz: the official labels and five others, (50000,) integers each, entry i for training image i."""
    rebuild = np.empty(0).__reduce__()[0]  # arrays are all that the pickle may hold
    names = [
        (rebuild, f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")
    ]  # before numpy 2, and since
    allowed = [*names, np.ndarray, np.dtype, type(np.dtype(np.int64))]
    with torch.serialization.safe_globals(allowed):
        content = torch.load(source, weights_only=True)
    file = folder / "cifar10n.npz"
    np.savez_compressed(file, **{name: np.asarray(content[name]).astype(np.int64) for name in NAMES})
    return file


def main(arguments: list[str] | None = None) -> None:
    """Write the files that were asked for."""
    parser = argparse.ArgumentParser(description="Make cifar10h.npz and cifar10n.npz.")
    parser.add_argument("folder", type=Path, metavar="DIR")
    parser.add_argument("--votes", type=Path, metavar="cifar10h-counts.npy")
    parser.add_argument("--labels", type=Path, metavar="CIFAR-10_human.pt")
    given = parser.parse_args(arguments)
    for source, write in ((given.votes, write_votes), (given.labels, write_labels)):
        if source is not None:
            print(write(source, given.folder))


if __name__ == "__main__":
    main()
