"""CLIP's ensembles of prompt templates by data set, from which MUST and DPA build their classifiers.

OpenAI published them with CLIP (arXiv 2103.00020; data/prompts.md of its repository); AID and CUB-200 are not in there
and follow RESISC45 and Birdsnap, as later work has it. ImageNet's eighty are left out: no loader here reads ImageNet.
"""

from .text import DEFAULT_TEMPLATE, TEMPLATES

_BIRDS = ("a photo of a {}, a type of bird.",)
_FROM_ABOVE = tuple(
    f"{kind} {what} of {article}{{}}."
    for article in ("", "a ", "the ")
    for what in ("imagery", "photo", "view")
    for kind in ("satellite", "aerial")
)
_STYLES = ("plastic", "toy", "embroidered", "cartoon", "plushie", "origami")
_RENDITIONS = ("painting of", "sculpture of", "sketch of", "tattoo of", "rendition of", "drawing of", "doodle of")

# By registry name of the data set.
PROMPTS: dict[str, tuple[str, ...]] = {
    "AID": _FROM_ABOVE,
    "Birdsnap": _BIRDS,
    "CUB200": _BIRDS,
    "Caltech101": tuple(
        template
        for article in ("a", "the")
        for template in (
            f"a photo of {article} {{}}.",
            *(f"a {rendition} {article} {{}}." for rendition in _RENDITIONS),
            *(f"{article} {style} {{}}." for style in _STYLES),
            f"{article} {{}} in a video game.",
            f"art of {article} {{}}.",
            f"graffiti of {article} {{}}.",
        )
    ),
    "DescribableTextures": tuple(
        f"a photo of {article} {{}} {what}."
        for article in ("a", "the")
        for what in ("texture", "pattern", "thing", "object")
    ),
    "EuroSAT": tuple(f"a centered satellite photo of {article}{{}}." for article in ("", "a ", "the ")),
    "FGVCAircraft": ("a photo of a {}, a type of aircraft.", "a photo of the {}, a type of aircraft."),
    "Food101": ("a photo of {}, a type of food.",),
    "OxfordFlowers": ("a photo of a {}, a type of flower.",),
    "OxfordPets": ("a photo of a {}, a type of pet.",),
    "RESISC45": _FROM_ABOVE,
    "StanfordCars": (
        "a photo of a {}.",
        "a photo of the {}.",
        "a photo of my {}.",
        "i love my {}!",
        "a photo of my dirty {}.",
        "a photo of my clean {}.",
        "a photo of my new {}.",
        "a photo of my old {}.",
    ),
    "SUN397": ("a photo of a {}.", "a photo of the {}."),
    "UCF101": tuple(
        f"a {what} of {who} person {doing}{{}}."
        for doing in ("", "using ", "doing ", "during ", "performing ", "practicing ")
        for who in ("a", "the")
        for what in ("photo", "video", "example", "demonstration")
    ),
}


def prompts_of(dataset: str) -> tuple[str, ...]:
    """The data set's ensemble; where CLIP has none, its one usual template."""
    return PROMPTS.get(dataset) or (TEMPLATES.get(dataset, DEFAULT_TEMPLATE),)
