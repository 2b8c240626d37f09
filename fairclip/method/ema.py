"""A teacher that is the exponential moving average of its student (Tarvainen & Valpola, arXiv 1703.01780)."""

import copy

import torch
from torch import Tensor, nn


def ramped_decay(step: int, start: float, end: float, steps: int) -> float:
    """Decay at a step (from 0): from ``start`` in a straight line to ``end`` at ``steps``, then constant (MUST)."""
    return start + (end - start) * min(1.0, step / max(1, steps))


class EMA:
    """A copy of a model whose trained parameters follow the original's slowly. What is not trained is shared.

    Attributes:
        model: the teacher; nothing in it takes a gradient.
    """

    def __init__(self, student: nn.Module) -> None:
        shared = {id(t): t for t in student.state_dict(keep_vars=True).values() if not t.requires_grad}
        self.trained = [name for name, parameter in student.named_parameters() if parameter.requires_grad]
        self.model = copy.deepcopy(student, shared).requires_grad_(False)

    @torch.no_grad()
    def update(self, student: nn.Module, decay: float) -> None:
        """teacher <- decay * teacher + (1 - decay) * student."""
        new = dict(student.named_parameters())
        for name, parameter in self._parameters().items():
            parameter.lerp_(new[name], 1 - decay)

    def _parameters(self) -> dict[str, Tensor]:
        own = dict(self.model.named_parameters())
        return {name: own[name] for name in self.trained}

    def state_dict(self) -> dict[str, Tensor]:
        return {name: parameter.detach() for name, parameter in self._parameters().items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for name, parameter in self._parameters().items():
            parameter.copy_(state[name])
