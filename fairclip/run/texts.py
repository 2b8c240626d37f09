"""The class texts of a run: name prompts and descriptions, encoded by the backbone's text tower."""

from typing import Any

from torch import Tensor
from yacs.config import CfgNode

from fairclip.backbones.backbone import Backbone
from fairclip.core.download import checksum_of
from fairclip.core.log import log
from fairclip.text.descriptions import find_descriptions, load_descriptions
from fairclip.text.embeddings import encode_ragged, name_prompts
from fairclip.text.templates import template_of


def encode_names(backbone: Backbone, cfg: CfgNode, classnames: list[str], templates: tuple[str, ...] = ()) -> Tensor:
    """Name prompts t_c, [K, d], unit rows. Without templates: the data set's usual one."""
    templates = tuple(templates) or (template_of(cfg.DATASET.NAME),)
    log.info(f"Templates: {' | '.join(templates)}")
    return name_prompts(backbone, classnames, templates)


def encode_descriptions(
    backbone: Backbone, cfg: CfgNode, dataset: object, classnames: list[str], path: str = ""
) -> tuple[Tensor, Tensor, dict[str, Any] | None]:
    """Class descriptions g(d_cm), [K, M, d], unit rows, the mask of those that exist, [K, M], and which file they are
    from: its name and SHA-256. Arguments as of ``read_descriptions``."""
    sentences, source = read_descriptions(cfg, dataset, classnames, path)
    return *encode_ragged(backbone, sentences), source


def read_descriptions(
    cfg: CfgNode, dataset: object, classnames: list[str], path: str = ""
) -> tuple[list[list[str]], dict[str, Any] | None]:
    """The sentences on each of K classes, and which file they are from: its name and SHA-256.

    Without a file of descriptions no class has any, and every class is known by its name prompt.

    Args: path, of the file; "": the data set's own.
    """
    file = find_descriptions(path, dataset)
    if file is None:
        log.warning(
            f"there are no class descriptions for {cfg.DATASET.NAME}, so its classes are known by "
            f"their names alone. Put a file into descriptions/ (JSON, class name -> list of sentences) or name one "
            f"by TRAINER.{cfg.TRAINER.NAME.upper()}.DESCRIPTIONS"
        )
        return [[] for _ in classnames], None
    sentences = load_descriptions(file, classnames)
    log.info(f"Descriptions: {sum(map(len, sentences))} for {len(sentences)} classes from {file}")
    return sentences, {"file": str(file), "sha256": checksum_of(file, "SHA-256")}
