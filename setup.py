"""Finds the packages, which setup.cfg alone cannot: two of them lie outside the folder kdsim."""

from setuptools import find_packages, setup

FOLDERS = {"kdsim": "kdsim", "kdsim.studies": "studies", "kdsim.figures": "figures"}

setup(
    packages=[
        name for top, folder in FOLDERS.items() for name in (top, *(f"{top}.{sub}" for sub in find_packages(folder)))
    ],
    package_dir=FOLDERS,
)
