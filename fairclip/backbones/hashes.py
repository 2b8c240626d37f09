"""The hashes of a backbone's towers: they are kept, since a backbone has to be loaded for them."""

import hashlib

from fairclip.backbones.backbone import NO_OPTIONS, Options
from fairclip.backbones.makers import load_backbone
from fairclip.backbones.openai import weights_of
from fairclip.core.cache import cache_folder, facts_of_files, keep_record, kept_record
from fairclip.core.errors import UserError


def hashes_now(name: str, options: Options = NO_OPTIONS) -> dict[str, str]:
    """``tower_hash`` and ``text_hash`` of the backbone of this name, as runs have them on record; empty where the name
    is not one of weights that are on disk, or these cannot be read.

    They are computed once, as long as the path, the size and the time of change of the files stay.
    """
    place = weights_of(name)
    if place is None:
        return {}
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    facts = [*facts_of_files([str(file.absolute()) for file in files]), options.plain()]
    record = cache_folder("backbones") / f"{hashlib.sha256(repr(facts).encode()).hexdigest()}.json"
    kept = kept_record(record)
    if kept is None:
        try:
            backbone = load_backbone(name, options=options)
        except UserError:
            return {}
        kept = {"tower_hash": backbone.fingerprint, "text_hash": backbone.text_hash}
        keep_record(record, kept)
    return kept
