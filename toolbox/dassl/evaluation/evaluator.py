from __future__ import annotations

import os
from collections import OrderedDict, defaultdict

import numpy as np
import torch
from yacs.config import CfgNode

from ..utils import mkdir_if_missing
from .build import EVALUATOR_REGISTRY


class EvaluatorBase:
    """Interface: `reset`, then `process` for each batch, then `evaluate`."""

    def __init__(self, cfg: CfgNode) -> None:
        self.cfg = cfg

    def reset(self) -> None:
        raise NotImplementedError

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        raise NotImplementedError

    def evaluate(self) -> OrderedDict:
        raise NotImplementedError


@EVALUATOR_REGISTRY.register()
class Classification(EvaluatorBase):
    """Accuracy, error rate and macro-F1; per class with `TEST.PER_CLASS_RESULT`; confusion matrix with
    `TEST.COMPUTE_CMAT`."""

    def __init__(self, cfg: CfgNode, lab2cname: dict[int, str] | None = None, **kwargs: object) -> None:
        super().__init__(cfg)
        if cfg.TEST.PER_CLASS_RESULT and lab2cname is None:
            raise ValueError("TEST.PER_CLASS_RESULT needs lab2cname, the names of the classes")
        self._lab2cname = lab2cname
        self.reset()

    def reset(self) -> None:
        self._correct = 0
        self._total = 0
        self._y_true: list[int] = []
        self._y_pred: list[int] = []
        # Label -> 1 for each image that is right, 0 for the others: evaluators of checkouts read it.
        self._per_class_res: dict[int, list[int]] | None = defaultdict(list) if self.cfg.TEST.PER_CLASS_RESULT else None

    def process(self, mo: torch.Tensor, gt: torch.Tensor) -> None:
        """Count one batch.

        Args:
            mo: model output, scores [B, K].
            gt: ground truth, labels [B].
        """
        pred = mo.argmax(dim=1)
        self._correct += int((pred == gt).sum())
        self._total += gt.shape[0]
        self._y_true.extend(gt.tolist())
        self._y_pred.extend(pred.tolist())
        if self._per_class_res is not None:
            for label, right in zip(gt.tolist(), (pred == gt).tolist(), strict=True):
                self._per_class_res[label].append(int(right))

    def evaluate(self) -> OrderedDict[str, float]:
        """Print the results and return them, in percent and unrounded: accuracy, error_rate, macro_f1 (over the
        classes that occur in the ground truth) and, if asked for, perclass_accuracy (their mean)."""
        if self._total == 0:
            raise ValueError("Nothing to evaluate: process() was given no image")
        # rows: ground truth, columns: prediction
        size = max(self._y_true + self._y_pred) + 1
        matrix = np.zeros((size, size), dtype=np.int64)
        np.add.at(matrix, (self._y_true, self._y_pred), 1)
        hits, support, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
        present = support > 0

        results = OrderedDict()
        results["accuracy"] = 100.0 * self._correct / self._total
        results["error_rate"] = 100.0 - results["accuracy"]
        results["macro_f1"] = float(100.0 * np.mean(2 * hits[present] / (support + predicted)[present]))
        print(
            "=> result\n"
            f"* total: {self._total:,}\n"
            f"* correct: {self._correct:,}\n"
            f"* accuracy: {results['accuracy']:.1f}%\n"
            f"* error: {results['error_rate']:.1f}%\n"
            f"* macro_f1: {results['macro_f1']:.1f}%"
        )

        if self.cfg.TEST.PER_CLASS_RESULT:
            print("=> per-class result")
            accs = []
            for label in np.flatnonzero(present).tolist():
                accs.append(100.0 * float(hits[label]) / float(support[label]))
                print(
                    f"* class: {label} ({self._lab2cname[label]})\t"
                    f"total: {support[label]:,}\tcorrect: {hits[label]:,}\tacc: {accs[-1]:.1f}%"
                )
            results["perclass_accuracy"] = sum(accs) / len(accs)
            print(f"* average: {results['perclass_accuracy']:.1f}%")

        if self.cfg.TEST.COMPUTE_CMAT:
            occurs = present | (predicted > 0)
            matrix = matrix[np.ix_(occurs, occurs)]
            matrix = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
            mkdir_if_missing(self.cfg.OUTPUT_DIR)
            path = os.path.join(self.cfg.OUTPUT_DIR, "cmat.pt")
            torch.save(torch.from_numpy(matrix), path)
            print(f"Confusion matrix is saved to {path}")

        return results
