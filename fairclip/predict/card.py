"""The model card of a trained model: what it is, what it reached, how to use it."""

from pathlib import Path

from fairclip.core.errors import few
from fairclip.predict.runs import TrainedModel

TEXT = """\
---
library_name: fairclip
pipeline_tag: image-classification
tags:
- clip
- fairclip
---

# {trainer} on {dataset}

CLIP's image tower ({backbone}) and one vector for each of {count} classes, as {trainer} trained them on the data set
{dataset}{labels} ({run}).

Classes: {classes}.
{results}
## Use

```bash
fair predict FOLDER IMAGES...{flag}
```

```python
from fairclip import Predictor

# FOLDER: a copy of this one. From the Hugging Face Hub: Predictor.from_hub("OWNER/NAME"{argument})
predictor = Predictor.from_folder("FOLDER"{argument})
predictor.top("image.jpg")  # the likeliest classes and their probabilities
```

`model.safetensors` has what training changed, and `fair.json` the classes and how images are prepared. The other
weights are the backbone's: {weights}.

## Licence

None is chosen yet. Before this is shared, say here, and as `license:` at the top, on what terms it may be used. Those
of the backbone and of the training images count, too.
"""


def model_card(trained: TrainedModel, backbone: str) -> str:
    """README.md in Markdown, with what the hub reads at its top.

    Args: backbone, its name as it is shared.
    """
    settings, results = trained.settings, trained.results
    labels = ""
    if "uses_labels" in results:
        labels = f", {'with' if results['uses_labels'] else 'without'} labels"
    from_file = backbone != trained.backbone or bool(Path(backbone).suffix)
    seed = "" if settings["seed"] is None else f", seed {settings['seed']}"
    weights = (
        f"they are in the file {backbone}, which is not part of this" if from_file else "they are loaded by its name"
    )
    return TEXT.format(
        trainer=one_line(settings["trainer"]),
        dataset=one_line(settings["dataset"]),
        backbone=one_line(backbone),
        count=len(trained.classnames),
        labels=labels,
        run=f"epoch {settings['epoch']}{seed}",
        classes=one_line(few(trained.classnames, 10)),
        results=table(trained),
        flag=f" --backbone {one_line(backbone)}" if from_file else "",
        argument=f', backbone="{one_line(backbone)}"' if from_file else "",
        weights=one_line(weights),
    )


def table(trained: TrainedModel) -> str:
    """The figures that are known, with an empty line around them; "" where there are none."""
    results = trained.results
    names = {"accuracy": "accuracy", "crop_accuracy": "accuracy with crops", "macro_f1": "macro F1"}
    rows = [f"| {name} | {results[key]:.2f} % |" for key, name in names.items() if key in results]
    if not rows:
        return ""
    title = f"| On the {one_line(results.get('split', 'test'))} images | |"
    return "\n".join(["", title, "|---|---|", *rows, ""])


def one_line(text: str) -> str:
    """Without what would break a line of Markdown."""
    return " ".join(text.split()).replace("`", "'").replace("|", "/")
