"""What a trainer keeps from step to step besides its model: declared once, then in every checkpoint."""

from typing import Any

from torch import Tensor


class Kept:
    """The attributes of a trainer that belong in its checkpoints, by name.

    An attribute is an object with ``state_dict`` and ``load_state_dict``, a tensor, or plain data.
    """

    def __init__(self, owner: object) -> None:
        self.owner, self.names = owner, list[str]()

    def add(self, name: str) -> None:
        self.names.append(name)

    def state_dict(self) -> dict[str, Any]:
        values = {name: getattr(self.owner, name) for name in self.names}
        return {name: value.state_dict() if hasattr(value, "state_dict") else value for name, value in values.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take back what ``state_dict`` gave. A tensor goes to the device of the one in its place, if there is one."""
        for name in self.names:
            value, now = state[name], getattr(self.owner, name)
            if hasattr(now, "load_state_dict"):
                now.load_state_dict(value)
            else:
                setattr(self.owner, name, value.to(now.device) if isinstance(now, Tensor) else value)
