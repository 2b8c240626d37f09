"""The figures for people."""

from typing import Any


def report(facts: dict[str, Any]) -> str:
    """A few lines on the parts that were measured."""
    f = facts
    lines = [
        f"{f['backbone']} ({f['weights']} weights), batch {f['batch']}, {f['crops']} crops, {f['classes']} classes, "
        f"PREC {f['prec']}, {f['device_name']}, {f['threads']} threads, {f['repeats']} repeats"
    ]
    if "overhead_ratio" in f:
        lines += [
            f"step            {f['step_seconds']:.4g} s, {f['images_per_second']:.4g} training images/s",
            f"bare encoder    {f['encoder_seconds']:.4g} s, overhead ratio {f['overhead_ratio']:.3f}",
            f"floor           {f['floor_seconds']:.4g} s: {f['operations_per_image'] / 1e9:.4g} GFLOP an image, or "
            f"{f['forward_equivalents']:.3g} forward passes of a view; matrix products in {f['step_prec']} at "
            f"{f['matmul_operations_per_second'] / 1e9:.4g} GFLOP/s",
            f"peak memory     {f['memory_peak_bytes'] / 2**20:.0f} MiB, {f['memory_at_rest_bytes'] / 2**20:.0f} of "
            "them before the first step",
        ]
    if "pipeline_speedup" in f:
        rates = ", ".join(f"{name} {rate:.4g}" for name, rate in f["views_per_second"].items())
        lines += [f"views/s a core  {rates}; speedup {f['pipeline_speedup']:.2f} ({f['photo_bytes'] // 1000} kB JPEGs)"]
    if "growth_seconds" in f:
        base = ", ".join(f"{name} {value}" for name, value in f["growth_base"].items())
        lines += [f"growth          seconds a step, from {base}"]
        for name, times in f["growth_seconds"].items():
            lines += [f"  {name:<14}" + ", ".join(f"{value}: {spent:.4g}" for value, spent in times.items())]
    if "stages_seconds" in f:
        step = f["stages_step_seconds"]
        lines += [f"stages          of a step with the loader, {step:.4g} s, {f['workers']} workers"]
        for stage, spent in f["stages_seconds"].items():
            lines += [f"  {stage:<26}{spent:10.4g} s {100 * spent / step:5.1f} %"]
    if "solvers" in f:
        lines += [f"solvers         all images at once, {f['solver_classes']} classes"]
        for name, sizes in f["solvers"].items():
            shown = (
                f"{n} images {x['seconds']:.3g} s ({x['processor_seconds']:.3g} s of processor time), "
                f"{x['bytes'] / 2**20:.0f} MiB more"
                for n, x in sizes.items()
            )
            lines += [f"  {name:<14}" + "; ".join(shown)]
    return "\n".join(lines)
