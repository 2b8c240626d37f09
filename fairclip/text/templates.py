"""Prompt templates: one for each data set, ensembles, and how a class name goes into them."""

from fairclip.core.errors import UserError

DEFAULT_TEMPLATE = "a photo of a {}."

# CoOp's single template for each data set (arXiv 2109.01134), by registry name; one of CLIP's where CoOp has none.
TEMPLATES = {
    "AID": "a satellite photo of {}.",
    "Birdsnap": "a photo of a {}, a type of bird.",
    "CUB200": "a photo of a {}, a type of bird.",
    "Caltech101": "a photo of a {}.",
    "DescribableTextures": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "Food101": "a photo of {}, a type of food.",
    "ImageNet": "a photo of a {}.",
    "ImageNetA": "a photo of a {}.",
    "ImageNetR": "a photo of a {}.",
    "ImageNetSketch": "a photo of a {}.",
    "ImageNetV2": "a photo of a {}.",
    "OxfordFlowers": "a photo of a {}, a type of flower.",
    "OxfordPets": "a photo of a {}, a type of pet.",
    "RESISC45": "a satellite photo of {}.",
    "StanfordCars": "a photo of a {}.",
    "SUN397": "a photo of a {}.",
    "SynthCars": "a photo of a {}.",
    "UCF101": "a photo of a person doing {}.",
}

# The seven templates that OpenAI's search over 80 kept for ImageNet (CLIP repository, prompt engineering notebook).
ENSEMBLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)

_BIRDS = ("a photo of a {}, a type of bird.",)
_FROM_ABOVE = tuple(
    f"{kind} {what} of {article}{{}}."
    for article in ("", "a ", "the ")
    for what in ("imagery", "photo", "view")
    for kind in ("satellite", "aerial")
)
_STYLES = ("plastic", "toy", "embroidered", "cartoon", "plushie", "origami")
_RENDITIONS = ("painting of", "sculpture of", "sketch of", "tattoo of", "rendition of", "drawing of", "doodle of")

# CLIP's ensembles for each data set, by registry name. OpenAI published them with CLIP (arXiv 2103.00020;
# data/prompts.md of its repository); AID and CUB-200 are not in there and follow RESISC45 and Birdsnap, as later work
# has it. ImageNet's eighty are left out: no loader here reads ImageNet.
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


def prompt(template: str, classname: str) -> str:
    """Put a class name (underscores read as spaces) where the template has `{}`."""
    if "{}" not in template:
        raise UserError(f"the template '{template}' has no {{}} for the class name")
    return template.replace("{}", classname.replace("_", " "))


def template_of(dataset: str) -> str:
    """The one usual template of a data set, by its registry name."""
    return TEMPLATES.get(dataset, DEFAULT_TEMPLATE)


def prompts_of(dataset: str) -> tuple[str, ...]:
    """CLIP's ensemble for a data set, by its registry name; where it has none, the one usual template."""
    return PROMPTS.get(dataset) or (template_of(dataset),)
