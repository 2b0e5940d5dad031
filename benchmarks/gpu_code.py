"""What the compiler makes of the kernel of `gpu_fused`, for a GPU that need not be there.

    python -m benchmarks.gpu_code

Registers, stack (spills) and instructions of the kernel, instructions and shuffles of a visit, for a few sizes.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

import torch

from kdsim.engines import SGD, Lane
from kdsim.engines.gpu_fused import constants
from kdsim.population import Population
from kdsim.students import LinearStudent, SoftmaxRegression
from kdsim.supervision import Annotators, Dirichlet, Exact, Independent, OneHot, Supervision, TwoPoint

FAMILIES = (Exact(), OneHot(), Annotators(2.5), Dirichlet(1.0), TwoPoint(0.7), Independent(0.05))


def compiled(
    classes: int,
    features: int,
    sgd: SGD,
    supervisions: tuple[Supervision, ...] = FAMILIES,
    student: LinearStudent | None = None,
    capability: int = 90,
    points: int = 65_536,
    **changed: int,
):
    """The kernel compiled for a configuration. `changed`: compile-time arguments other than the engine's."""
    import triton
    from triton.backends.compiler import GPUTarget

    from kdsim.engines.triton_sgd import sgd_segment

    p = torch.full((points, classes), 1 / classes, dtype=torch.float64)
    population = Population(torch.zeros(points, features, dtype=torch.float64), p)
    lanes = [Lane(supervision, 0.1, 0, 1) for supervision in supervisions]
    student = student or SoftmaxRegression(0.1, "centred")
    static = constants(student, population, lanes, sgd, False) | changed
    options = {name: static.pop(name) for name in ("num_warps", "enable_fp_fusion")}
    number = "*fp64" if sgd.dtype == "float64" else "*fp32"
    kinds = {"key_ptr": "*i64", "family_ptr": "*i32", "segment_ptr": "*i64", "dist_sq_ptr": "*fp64"}
    signature = {name: kinds.get(name, "constexpr" if name in static else number) for name in sgd_segment.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(signature) if name.endswith("_ptr")}
    source = triton.compiler.ASTSource(sgd_segment, signature, constexprs=static, attrs=aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(kernel) -> dict[str, int]:
    """Registers and bytes of stack a thread, instructions of the kernel and of its loop over visits."""
    import triton

    tools = Path(triton.__path__[0]) / "backends" / "nvidia" / "bin"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(kernel.asm["cubin"])
        usage = subprocess.run([tools / "cuobjdump", "--dump-resource-usage", path], capture_output=True, text=True)
        sass = subprocess.run([tools / "nvdisasm", path], capture_output=True, text=True).stdout
    lines, labels, loops = [], {}, []
    for line in map(str.strip, sass.splitlines()):
        if label := re.match(r"(\.L_x_\d+):", line):
            labels[label[1]] = len(lines)
        elif re.search(r"/\*[0-9a-f]{4,}\*/\s+.*;", line):
            lines.append(line)
    for number, line in enumerate(lines):
        target = re.search(r"BRA.*(\.L_x_\d+)", line)
        if target and labels[target[1]] < number:
            loops.append((labels[target[1]], number))
    inner = [loop for loop in loops if not any(loop[0] <= a and b < loop[1] for a, b in loops)]
    shuffles = {loop: sum("SHFL" in line for line in lines[loop[0] : loop[1]]) for loop in inner}
    first, last = max(shuffles, key=shuffles.get)  # sums over features and classes: the loop over visits
    count = {name: int(re.search(rf"{name}:(\d+)", usage.stdout)[1]) for name in ("REG", "STACK", "SHARED")}
    return {**count, "instructions": len(lines), "visit": last - first + 1, "shuffles": shuffles[first, last]}


def main() -> None:
    for dtype in ("float32", "float64"):
        for supervision in FAMILIES:
            used = resources(compiled(5, 31, SGD(dtype=dtype), (supervision,)))
            print(f"K=5 d=31 {dtype} {supervision.name:12}", used, flush=True)
    for classes, features in ((10, 65), (100, 64), (10, 512), (2, 4000)):
        used = resources(compiled(classes, features, SGD(), (OneHot(),)))
        print(f"K={classes} d={features} float32 one-hot", used, flush=True)


if __name__ == "__main__":
    main()
