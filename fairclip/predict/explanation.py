"""Predictions by local crops, and which crops of an image counted."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from fairclip.method.anchors import AnchorClassifier
from fairclip.method.crop_alignment import crop_weights, mean_of_crops, select_crops
from fairclip.views.views import Box

# By whether the whole image is right, and whether the crops are.
EFFECTS = {
    (False, True): "Crops help: right only with them",
    (True, False): "Crops harm: right only without them",
    (True, True): "Right with and without crops",
    (False, False): "Wrong with and without crops",
}


@dataclass
class Explanation:
    """What the crops of one image say, and which of them counted."""

    image: Image.Image
    boxes: list[Box]  # of all N crops: left, upper, right, lower, in the image's pixels
    selected: list[int]  # the k that counted, as indices into the boxes, most relevant first
    relevance: list[float]  # r_i = <z_i, z> of the selected
    weights: list[float]  # w_i of the selected, summing to 1
    crops: list[Image.Image]  # the selected at the model's input size
    scores: Tensor  # LAS: cosines with the classes, [K]
    local: Tensor  # probabilities by the crops, softmax(tau * LAS), [K]
    whole: Tensor  # probabilities by the centre crop alone, [K]


@dataclass
class Example(Explanation):
    """An explained image, with what a reader should know about it."""

    truth: int | None = None  # the true class; None: not known
    caption: str = ""  # in place of the true class where that is not known

    @property
    def outcome(self) -> tuple[bool, bool]:
        """Whether the whole image's answer is right, and whether the crops' is."""
        return int(self.whole.argmax()) == self.truth, int(self.local.argmax()) == self.truth

    @property
    def effect(self) -> str:
        """What the crops do to the answer, in words; "" where the true class is not known."""
        return "" if self.truth is None else EFFECTS[self.outcome]


@dataclass
class ViewPredictions:
    """What a model makes of the views of B images; all on the CPU."""

    crops: Tensor  # all N crops in bytes, [B, N, 3, S, S]
    index: Tensor  # of the k crops that count, most relevant first, [B, k]
    relevance: Tensor  # of these, [B, k]
    weights: Tensor  # of these, [B, k], rows that sum to 1
    scores: Tensor  # LAS: cosines, [B, K]
    local: Tensor  # probabilities by the crops, [B, K]
    whole: Tensor  # probabilities by the whole image, [B, K]


@torch.inference_mode()
def predict_views(
    model: AnchorClassifier, normalize: Callable[[Tensor], Tensor], views: Tensor, k: int, sharpness: float
) -> ViewPredictions:
    """Predict images from their crops and, apart, from the whole image.

    Args:
        normalize: views in bytes [B, 3, S, S] -> what the image tower takes, on the model's device.
        views: [B, 1 + N, 3, S, S] in bytes: the whole image, then its crops.
        k: crops that count, 1 <= k <= N.
        sharpness: of the crops' weights.

    Raises:
        UserError: ``k`` is not within 1..N.
    """
    anchors = model.anchors()
    features = torch.stack([model.encode(normalize(view)) for view in views.unbind(1)], dim=1)
    z, crops = features[:, 0], features[:, 1:]
    index, relevance = select_crops(z, crops, k)
    weights = crop_weights(relevance, sharpness)
    scores = mean_of_crops(crops, index, weights) @ anchors.t()
    return ViewPredictions(
        crops=views[:, 1:].cpu(),
        index=index.cpu(),
        relevance=relevance.cpu(),
        weights=weights.cpu(),
        scores=scores.cpu(),
        local=(model.tau * scores).softmax(dim=1).cpu(),
        whole=(model.tau * z @ anchors.t()).softmax(dim=1).cpu(),
    )


def explain_image(image: Image.Image, boxes: list[Box], predicted: ViewPredictions, row: int) -> Explanation:
    """The explanation of one image, which is ``row`` of what was predicted; ``boxes`` are where its crops were cut."""
    selected = predicted.index[row].tolist()
    return Explanation(
        image=image,
        boxes=boxes,
        selected=selected,
        relevance=predicted.relevance[row].tolist(),
        weights=predicted.weights[row].tolist(),
        crops=[Image.fromarray(predicted.crops[row, i].permute(1, 2, 0).numpy()) for i in selected],
        scores=predicted.scores[row],
        local=predicted.local[row],
        whole=predicted.whole[row],
    )
