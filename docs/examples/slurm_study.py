"""A study on a Slurm cluster: workers come as jobs, and `kdsim run-study` gives them its packs and trainings.

    python slurm_study.py --jobs 8 --cores 32 --memory 64GB --walltime 04:00:00 -- noise-sweep --replicas 100000
    python slurm_study.py --jobs 4 --cores 8 --memory 64GB --gpu -- cifar-distillation --device cuda --data-dir DIR
    python slurm_study.py --local 2 -- noise-sweep --quick              the same on this machine, to try it

What follows `--` are arguments of `kdsim run-study`. Run it where it may stay for as long as the study takes, for
example in a small job of its own; if it ends, the same command goes on from there. Needs `pip install 'kdsim[slurm]'`,
and a results folder that all nodes see (trainings write there).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections.abc import Sequence
from typing import Any

from distributed import LocalCluster

from kdsim.cli import main


def slurm(options: argparse.Namespace) -> Any:
    """Jobs of one worker a core, or of one worker with the job's GPU."""
    from dask_jobqueue import SLURMCluster

    if shutil.which("sbatch") is None:
        sys.exit("slurm_study: there is no sbatch here: run it on a node of the cluster, or with --local N")
    return SLURMCluster(
        cores=options.cores,
        processes=1 if options.gpu else options.cores,  # a worker does one task at a time, on all its threads
        memory=options.memory,
        walltime=options.walltime,
        queue=options.partition,
        account=options.account,
        job_extra_directives=["--gres=gpu:1"] if options.gpu else [],
        worker_extra_args=["--resources", "GPU=1"] if options.gpu else [],
    )


def run(arguments: Sequence[str] | None = None) -> int:
    """Start the workers, run the study, and give them back."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--local", type=int, metavar="N", help="N workers on this machine instead of jobs")
    parser.add_argument("--jobs", type=int, default=1, help="number of jobs")
    parser.add_argument("--cores", type=int, default=1, help="cores of a job")
    parser.add_argument("--memory", default="4GB", help="memory of a job")
    parser.add_argument("--walltime", default="01:00:00", help="time limit of a job; work that it cuts off is repeated")
    parser.add_argument("--partition", help="of Slurm")
    parser.add_argument("--account", help="of Slurm")
    parser.add_argument("--gpu", action="store_true", help="one GPU and one worker a job")
    parser.add_argument("study", nargs="+", help="what `kdsim run-study` takes, after --")
    options = parser.parse_args(arguments)
    if options.local is not None:
        cluster = LocalCluster(options.local, threads_per_worker=1, dashboard_address=":0")
    else:
        cluster = slurm(options)
        cluster.scale(jobs=options.jobs)
    with cluster:
        return main(["run-study", *options.study, "--executor", "dask", "--scheduler", cluster.scheduler_address])


if __name__ == "__main__":
    sys.exit(run())
