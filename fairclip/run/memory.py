"""Where memory runs out: say what to lower, or lower it and do the work again."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch

from fairclip.backbones.towers import Passes, out_of_memory
from fairclip.core.errors import UserError
from fairclip.core.log import log

T = TypeVar("T")


class MemoryGuard:
    """Does work that may need more memory than there is.

    Args:
        passes: how many images go through the tower at once.
        auto: TRAIN.AUTO_CHUNK, whether to go on with fewer.
        settings: other keys that decide how much memory is needed, with their values, for the message.

    Attributes:
        moved: whether the work under way has changed parameters, and cannot be done again.
    """

    def __init__(self, passes: Passes, auto: bool, settings: str) -> None:
        self.passes, self.auto, self.settings = passes, auto, settings
        self.moved = False

    def run(self, work: Callable[..., T], *args: Any) -> T:
        """``work(*args)``; where memory runs out and ``auto`` is set, again with fewer images at once.

        Raises:
            UserError: memory ran out, and nothing is left to lower, or ``auto`` is off.
        """
        while True:
            self.moved = False
            try:
                return work(*args)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
                reason = str(error).split("\n")[0]
            # Outside `except`: the traceback no longer holds tensors, so the cache can be freed.
            if torch.cuda.is_available():
                torch.cuda.empty_cache()
            images = self.passes.last[1]
            halved = self.passes.halve() if self.auto and not self.moved else None
            if halved is None:
                raise UserError(
                    f"out of memory ({reason}) after a pass of {images} images. Lower TRAIN.CHUNK (now "
                    f"{self.passes.chunk}: images of a pass without gradients), TRAIN.MICRO_BATCH (now "
                    f"{self.passes.micro_batch}: of one with; 0 sets no limit), {self.settings}"
                    + ("" if self.auto else ", or set TRAIN.AUTO_CHUNK True")
                )
            log.info(f"Out of memory with {images} images at once: {halved} from here on")
