"""Evaluation: a function of every image of a loader, figures of scores, and the files that say what came out."""

from collections.abc import Callable, Sequence

import torch
from dassl.evaluation.evaluator import EvaluatorBase
from torch import Tensor
from torch.utils.data import DataLoader

from fairclip.core.distributed import from_main, gather_list, is_main
from fairclip.core.errors import UserError
from fairclip.core.log import as_details
from fairclip.run.results import write_predictions
from fairclip.views.loading import progress


@torch.no_grad()
def map_batches(
    loader: DataLoader,
    function: Callable[[dict], Tensor],
    device: torch.device,
    title: str,
    run: Callable[..., Tensor] = lambda work, batch: work(batch),
) -> Tensor:
    """``function`` of every batch: its rows for all images, [N, ...], in the loader's order and on ``device``.

    Of several processes each works on its share of the images, and all get all rows.

    Args: run, what calls the function on a batch, such as ``MemoryGuard.run``.
    """
    return gather_list([run(function, batch) for batch in progress(loader, title)]).to(device)


def check_finite(scores: Tensor, what: str) -> None:
    """Raises UserError for scores [N, K] that are no numbers: the largest of such would be called a prediction."""
    rows = (~scores.isfinite()).any(dim=1).sum().item()
    if rows:
        raise UserError(
            f"{rows:,} of {len(scores):,} {what} images have scores that are not finite: no result. "
            "Lower OPTIM.LR if the model was trained, and look at the weights of the backbone if it was not"
        )


def accuracy(scores: Tensor, labels: Sequence[int]) -> float:
    """How many of N images are classified rightly by scores [N, K], in percent."""
    return 100 * (scores.argmax(dim=1) == torch.tensor(labels, device=scores.device)).float().mean().item()


def more_figures(logits: Tensor, labels: Sequence[int]) -> dict[str, float]:
    """In percent, of logits [N, K]: the mean over classes of how many of a class's images are right, where it has any;
    and, with more than five classes, how many images have the true class among the five likeliest."""
    logits, truth = logits.cpu(), torch.tensor(labels)  # not every device has float64
    right = (logits.argmax(dim=1) == truth).double()
    count = torch.bincount(truth, minlength=logits.shape[1]).double()
    hits = torch.bincount(truth, weights=right, minlength=logits.shape[1])
    figures = {"mean_class_accuracy": 100 * (hits / count)[count > 0].mean().item()}
    if logits.shape[1] > 5:
        among = (logits.topk(5, dim=1).indices == truth[:, None]).any(dim=1)
        figures["top5_accuracy"] = 100 * among.double().mean().item()
    return figures


def evaluate(evaluator: EvaluatorBase, logits: Tensor, labels: Sequence[int]) -> dict[str, float]:
    """What Dassl's evaluator makes of the logits [N, K] of a split, in percent; the same in every process."""
    evaluator.reset()
    evaluator.process(logits, torch.tensor(labels, device=logits.device))
    figures: dict[str, float] = {}
    if is_main():  # it may write a file
        with as_details():
            figures = {name: float(value) for name, value in evaluator.evaluate().items()}
    return from_main(figures)


def save_predictions(
    folder: str, root: str, classnames: Sequence[str], paths: Sequence[str], labels: Sequence[int], logits: Tensor
) -> None:
    """predictions.csv: what is said of each of N images, by its logits [N, K]. Negative labels: none are known."""
    sure, predicted = logits.softmax(dim=1).max(dim=1)
    rows = zip(paths, labels, predicted.tolist(), sure.tolist(), strict=True)
    of_labels: list[float] = []
    if min(labels, default=-1) >= 0:
        # In float64, as the probability of a label may be less than float32 can hold; not every device has float64.
        of_labels = logits.cpu().double().softmax(dim=1)[range(len(labels)), list(labels)].tolist()
    write_predictions(folder, root, classnames, rows, of_labels)
