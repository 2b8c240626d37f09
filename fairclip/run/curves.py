"""Curves of a run for TensorBoard. The writer is our own, since not every Dassl has one."""

from pathlib import Path
from typing import Any

from fairclip.core.log import details


class Curves:
    """Writes into a folder; where the package tensorboard is missing, nowhere."""

    def __init__(self, folder: Path) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            details.info("No TensorBoard files are written, as the package tensorboard is not installed")
            return
        folder.mkdir(parents=True, exist_ok=True)
        details.info(f"TensorBoard files: {folder}")
        self._writer = SummaryWriter(log_dir=str(folder))

    def add(self, name: str, value: float, step: int | None) -> None:
        if self._writer is not None:
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
