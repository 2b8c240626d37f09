"""What the checks of input, the digests and the locks cost a run of FAIR on synth_cars, in seconds of the processor.

    python tests/cost.py [--root DATA] [--epochs 1] [--seed 1]

The same run twice, in two folders with one cache: the first one looks at all images, and the second one finds that
they have been looked at. Most checks are done once a run, so that their share falls with the number of epochs.
"""

import argparse
import cProfile
import os
import pstats
import sys
import tempfile
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1]), str(Path(__file__).parent)]
import conftest  # noqa: E402, F401
from commands import train  # noqa: E402

ROOT = Path(__file__).resolve().parents[1]
CHECKS = {  # modules, and in them the functions that do nothing else; (): all
    "core/lock.py": (),
    "core/rules.py": (),
    "core/tensor_files.py": ("digest_of", "check_zip", "_check_archive", "are_tensors", "are_vectors", "is_finite"),
    "core/cache.py": ("_digest", "_is_whole"),
    "core/files.py": ("sweep", "sweep_once", "_hold"),
    "backbones/backbone.py": ("fingerprint", "text_hash", "text_fingerprint"),
    "run/schema.py": (),
    "run/checks.py": (),
    "run/unread.py": (),
    "run/finished.py": (),
    "run/resume.py": (),
    "run/evaluation.py": ("check_finite",),
    "data/images.py": (),
}


def is_check(function: tuple[str, int, str]) -> bool:
    file, _, name = function
    inside = file.partition("/fairclip/")[2]
    return inside in CHECKS and (not CHECKS[inside] or name in CHECKS[inside])


def checks_of(profile: cProfile.Profile) -> dict[str, float]:
    """Seconds in each check that something else than a check called."""
    seconds: dict[str, float] = {}
    for function, (_, _, _, _, callers) in pstats.Stats(profile).stats.items():  # type: ignore[attr-defined]
        if is_check(function):
            name = f"{function[0].partition('/fairclip/')[2]} {function[2]}"
            seconds[name] = sum(figures[3] for caller, figures in callers.items() if not is_check(caller))
    return seconds


def processor() -> float:
    """Seconds of this process and of the workers that have ended."""
    used = os.times()
    return used.user + used.system + used.children_user + used.children_system


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default=str(ROOT / "data"))
    parser.add_argument("--epochs", default="1")
    parser.add_argument("--seed", default="1")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cost-") as name:
        os.environ["FAIR_CACHE"] = f"{name}/cache"
        for run in ("first run", "second run"):
            words = ["--root", args.root, "--seed", args.seed, "--trainer", "FAIR", "--output-dir", f"{name}/{run}"]
            words += ["--dataset-config-file", str(ROOT / "configs/datasets/synth_cars.yaml")]
            words += ["--config-file", str(ROOT / "configs/trainers/FAIR/tiny.yaml"), "OPTIM.MAX_EPOCH", args.epochs]
            profile, console, start = cProfile.Profile(processor), sys.stdout, time.monotonic()
            before = processor()
            try:
                assert profile.runcall(train, words) == 0
            finally:
                sys.stdout = console
            whole, checks = processor() - before, checks_of(profile)
            total, clock = sum(checks.values()), time.monotonic() - start
            print(f"{run}: {whole:.1f} s ({clock:.0f} s on the clock), checks {total:.2f} s ({total / whole:.2%})")
            for check, seconds in sorted(checks.items(), key=lambda row: -row[1])[:8]:
                print(f"  {seconds:7.3f} s  {check}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
