"""Finds before any run begins what would end it: unknown config keys, other settings, data sets that are not there."""

import io
import sys
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path

from yacs.config import CfgNode

from fairclip.compare.plan import Job
from fairclip.core.errors import UserError, few
from fairclip.run.results import read_results


def check_jobs(jobs: Sequence[Job], data: bool = True) -> None:
    """Check all runs of a plan; takes some seconds, as it imports what a run does. Of a finished run whose backbone's
    file has changed since, a warning says so.

    Args:
        data: whether the data sets of the runs that are not finished are looked for.

    Raises:
        UserError: a config key that does not exist, a finished run that has other settings or descriptions, a data
            set that is not there.
    """
    from fairclip.run.finished import changed_backbone, finished_results

    configs = configs_of(jobs)
    finished = [job for job in jobs if job.finished]
    if others := {job: text for job in finished if (text := changes(job.folder, configs[job]))}:
        raise UserError(refusal(others))
    changed: dict[str, list[str]] = {}
    for job in finished:
        results = finished_results(configs[job]) or {}
        changed.setdefault(changed_backbone(results, configs[job]), []).append(str(job.folder))
    for words, folders in changed.items():
        if words:
            print(f"Warning: {few(folders)} {words}", file=sys.stderr)
    if data:
        find_data([configs[job] for job in jobs if not job.finished])


def configs_of(jobs: Sequence[Job]) -> dict[Job, CfgNode]:
    """Raises UserError for a config key that does not exist, or a value that it cannot have."""
    from fairclip.backbones.openai import share_with_clip
    from fairclip.core.plugins import import_plugins
    from fairclip.core.toolbox import use_dassl
    from fairclip.run.config import build_cfg
    from fairclip.run.launch import parse_args

    use_dassl(announce=False)
    with redirect_stdout(io.StringIO()):  # each run says again what is said here
        share_with_clip()
        modules, _ = import_plugins("trainers", "datasets")
        return {job: build_cfg(parse_args(job.arguments), modules) for job in jobs}


def changes(folder: Path, cfg: CfgNode) -> str:
    """The settings that a finished run had and their values now, "" if they are the same."""
    from fairclip.run.finished import different_settings, in_words
    from fairclip.run.settings import run_hash

    results = read_results(folder)
    if results is None or results.get("config_hash") == run_hash(cfg):
        return ""
    different = different_settings(folder, cfg)
    return in_words(different, None, None) if different else ""


def refusal(others: dict[Job, str]) -> str:
    """One message for all runs of other settings; what several have in common is said once."""
    lines = []
    for text in dict.fromkeys(others.values()):
        folders = [str(job.folder) for job in others if others[job] == text]
        lines.append(f"  {few(folders)}\n    {text}")
    return "\n".join(
        [
            f"{len(others)} finished run{'s have' if len(others) > 1 else ' has'} other settings:",
            *lines,
            "Choose another TAG or OUTPUT, or remove those folders.",
        ]
    )


def find_data(configs: Iterable[CfgNode]) -> None:
    """Look for the data sets without reading them.

    Raises:
        UserError: one message for all that are missing.
    """
    from dassl.data.datasets import DATASET_REGISTRY

    problems: dict[str, str] = {}
    for cfg in configs:
        if cfg.DATASET.NAME not in DATASET_REGISTRY.registered_names():
            problems[cfg.DATASET.NAME] = f"there is no data set {cfg.DATASET.NAME!r}"
            continue
        # Only data sets that people download can tell.
        locate = getattr(DATASET_REGISTRY.get(cfg.DATASET.NAME), "locate", None)
        if locate is not None and cfg.DATASET.NAME not in problems:
            try:
                locate(Path(cfg.DATASET.ROOT).expanduser())
            except UserError as error:
                problems[cfg.DATASET.NAME] = str(error)
    if problems:
        heading = f"{len(problems)} data sets cannot be used: {', '.join(problems)}\n\n" if len(problems) > 1 else ""
        raise UserError(heading + "\n\n".join(problems.values()))
