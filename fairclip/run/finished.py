"""Whether a folder holds the results of a run already, and in what another run's settings differ."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

from fairclip.backbones.hashes import hashes_now
from fairclip.core.download import checksum_of
from fairclip.core.errors import UserError
from fairclip.core.log import log
from fairclip.core.reading import read_yaml
from fairclip.run.results import LATER_KEYS, NOT_HASHED, lacks_protocols, read_results
from fairclip.run.settings import backbone_options, own_settings, run_hash

EPOCHS = "OPTIM.MAX_EPOCH"


def already_finished(cfg: CfgNode) -> bool:
    """Whether OUTPUT_DIR holds all that this very run would find. A warning says so if its backbone's file has changed
    since. Raises UserError as ``finished_results``."""
    results = finished_results(cfg)
    if results is None or (cfg.TEST.get("PROTOCOLS", False) and lacks_protocols(results)):
        return False
    if words := changed_backbone(results, cfg):
        log.warning(f"{cfg.OUTPUT_DIR} {words}")
    log.info(
        f"{cfg.OUTPUT_DIR}: finished already, accuracy {results['accuracy']:.2f} (remove the folder to run it again)"
    )
    return True


def finished_results(cfg: CfgNode) -> dict[str, Any] | None:
    """The results of this very run in OUTPUT_DIR, None if there are none.

    Raises:
        UserError: it holds those of other settings, another seed or other class descriptions.
    """
    results = read_results(cfg.OUTPUT_DIR)
    if results is None:
        return None
    other: list[str] = []
    different: dict[str, tuple[Any, Any]] = {}
    if results.get("config_hash") != (now := run_hash(cfg)):
        different = different_settings(cfg.OUTPUT_DIR, cfg)
        other.append(in_words(different, results.get("config_hash"), now))
    if cfg.SEED >= 0 and results.get("seed") != cfg.SEED:
        other.append(f"seed {results.get('seed')} (now {cfg.SEED})")
    used = results.get("descriptions")
    if used and Path(used["file"]).is_file():  # a run that was moved may have left the file behind
        digest = checksum_of(used["file"])
        if digest != used["sha256"]:
            other.append(f"other descriptions (SHA-256 of {used['file']} {used['sha256'][:12]}, now {digest[:12]})")
    if other:
        raise UserError(
            f"{cfg.OUTPUT_DIR} holds a finished run with {' and '.join(other)}: choose another --output-dir (the "
            "scripts: TAG or OUTPUT), or remove that folder"
            + (f". For more epochs of that run: --resume-from {cfg.OUTPUT_DIR}" if [*different] == [EPOCHS] else "")
        )
    return results


def another_tower(recorded: Mapping[str, Any], now: Mapping[str, str | None], backbone: str) -> str:
    """In words, that a run or a checkpoint was trained with another image or text tower than its backbone has now; ""
    if it was not, or that is not known.

    Args: recorded, now: `tower_hash` and `text_hash`, where they are known.
    """
    for tower, key in (("image", "tower_hash"), ("text", "text_hash")):
        if recorded.get(key) and now.get(key) and recorded[key] != now[key]:
            return (
                f"was trained with another {tower} tower than {backbone} has now: put the old file of weights back, or "
                "remove the run's folder and run again"
            )
    return ""


def changed_backbone(results: Mapping[str, Any], cfg: CfgNode) -> str:
    """The same of a finished run, by its results and the file of its backbone."""
    if not (results.get("tower_hash") or results.get("text_hash")):  # from before they were noted
        return ""
    name = cfg.MODEL.BACKBONE.NAME
    return another_tower(results, hashes_now(name, backbone_options(cfg)), name)


def different_settings(folder: str | Path, cfg: CfgNode) -> dict[str, tuple[Any, Any]]:
    """The settings that decide the result and differ between a run's config.yaml and a config: key -> both values.

    None stands for a key that is not there. Empty too where there is no such file, or it cannot be read.
    """
    try:
        before = dict(flatten(read_yaml(Path(folder) / "config.yaml", "the config of a run")))
    except UserError:
        return {}
    # As yaml would read it back: tuples become lists. The size follows the backbone, and is not known yet.
    now = dict(flatten(yaml.safe_load(own_settings(cfg).dump())))
    own = f"TRAINER.{cfg.TRAINER.NAME.upper()}."
    keys = [key for key in {**before, **now} if key not in NOT_HASHED and key != "INPUT.SIZE"]
    values = {key: tuple(side.get(key, LATER_KEYS.get(key)) for side in (before, now)) for key in keys}
    return {
        key: (then, today)
        for key, (then, today) in values.items()
        if then != today
        and (key in now or not key.startswith("TRAINER.") or key.startswith(own))  # older files have all trainers'
    }


def in_words(different: Mapping[str, tuple[Any, Any]], before: object, now: object) -> str:
    """What differs, for a message; where that is not known, the hashes ``before`` and ``now``."""
    if not different:
        return f"other settings (config_hash {before}, now {now})"
    return ", ".join(f"{key} {then} (now {value})" for key, (then, value) in different.items())


def flatten(node: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, with their dotted keys: "OPTIM.LR", 0.001."""
    for name, value in node.items():
        key = str(name)
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
