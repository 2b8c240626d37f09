"""The base of classifiers on an image tower, and passes through the tower in pieces that fit into memory.

How many images go through at once changes nothing but rounding: CLIP keeps its BatchNorm statistics, so each image is
encoded by itself.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from fairclip.backbones.precision import autocast
from fairclip.core.log import log

PROBE_IMAGES = 16  # images by which the memory of a pass is measured
MEMORY_SHARE = 0.5  # of the free memory that a pass may take; the rest is for graph, gradients and the allocator's gaps


class Passes:
    """How many images go through a tower at once, for all models of a run: teacher and student share one object.

    Attributes:
        chunk: most images of a pass without a graph. 0: chosen from free memory on a GPU, all that are given on a CPU.
        micro_batch: most images of a pass that builds a graph; 0: all that are given.
        compiled: whether towers are run by torch.compile.
        last: which of the two cut the last pass, and how many images the largest piece had.
    """

    def __init__(self, chunk: int = 0, micro_batch: int = 0, compiled: bool = False) -> None:
        self.chunk, self.micro_batch, self.compiled = chunk, micro_batch, compiled
        self.last = ("chunk", 0)

    def __deepcopy__(self, memo: dict) -> "Passes":
        return self

    def split(self, images: Tensor, kind: str) -> tuple[Tensor, ...]:
        """The images in as few pieces as ``kind`` ("chunk" or "micro_batch") allows, as equal as can be."""
        size = getattr(self, kind) or len(images)
        pieces = images.chunk(-(-len(images) // size)) if len(images) else (images,)
        self.last = (kind, len(pieces[0]))
        return pieces

    def halve(self) -> str | None:
        """Halve what cut the last pass. Returns the config key and its new value, or None where nothing is left."""
        kind, size = self.last
        if size <= 1:
            return None
        setattr(self, kind, size // 2)
        return f"TRAIN.{kind.upper()} {size // 2}"


class ImageClassifier(nn.Module):
    """Base of classifiers on an image tower.

    Args:
        visual: CLIP's image tower, [B, 3, S, S] -> [B, d].
        prec: precision of the tower's arithmetic, "fp32", "amp" or "bf16"; features and logits are always float32.
    """

    def __init__(self, visual: nn.Module, prec: str = "fp32") -> None:
        super().__init__()
        self.visual = visual
        self.prec = prec
        self.passes = Passes()

    def train(self, mode: bool = True) -> "ImageClassifier":
        """Always evaluation mode: CLIP has no dropout, and BatchNorm keeps CLIP's statistics."""
        return super().train(False)

    def class_vectors(self) -> Tensor | None:
        """[K, d], if logits are tau times the cosines of a feature and one vector for each class; else None."""
        return None

    def encode(self, images: Tensor) -> Tensor:
        """Unit image features f(x) in float32, [B, d]."""
        return F.normalize(self.features(images), dim=-1)

    @torch.no_grad()
    def encode_views(self, views: Tensor) -> Tensor:
        """Unit features of views [B, V, 3, S, S] in float32, [B, V, d], without a gradient: in as few passes as memory
        allows, but on a CPU, unless a chunk is set, one view of the batch at a time. All at once they outgrow its
        cache, and take twice as long."""
        if views.device.type == "cpu" and not self.passes.chunk:
            return torch.stack([self.encode(view) for view in views.unbind(1)], dim=1)
        return self.encode(views.flatten(0, 1)).unflatten(0, views.shape[:2])

    def features(self, images: Tensor, tower: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The tower's features in float32, [B, d], of any length; ``tower``: another way through it than its own.

        With gradients on, pieces of ``passes.micro_batch`` images keep no activations but compute them again when
        their gradient is due: the gradient is that of the whole batch, with the activations of one piece at a time.
        """

        def run(piece: Tensor) -> Tensor:
            with autocast(piece.device, self.prec):
                features = tower(piece) if tower else self.visual(piece)
            return features.float()

        # Asked in every pass: a copy, such as a teacher, starts uncompiled.
        if self.passes.compiled and self._to_compile._compiled_call_impl is None:
            self._compile(run, images)
        if torch.is_grad_enabled():
            pieces = self.passes.split(images, "micro_batch")
            if len(pieces) == 1:
                return run(images)
            kept = [checkpoint(run, piece, use_reentrant=False, preserve_rng_state=False) for piece in pieces]
            return torch.cat(kept)
        with torch.inference_mode():
            if images.device.type != "cpu" and not self.passes.chunk and len(images) > PROBE_IMAGES:
                self.passes.last = ("chunk", PROBE_IMAGES)
                self.passes.chunk = images_that_fit(run, images[:PROBE_IMAGES])
            features = torch.cat([run(piece) for piece in self.passes.split(images, "chunk")])
        return features.clone()  # autograd refuses tensors of inference mode, also as labels and weights

    @property
    def _to_compile(self) -> nn.Module:
        """The tower, or of a ViT its blocks, which LaFTer's prompts go through too."""
        return getattr(self.visual, "transformer", self.visual)

    def _compile(self, run: Callable[[Tensor], Tensor], images: Tensor) -> None:
        """Compile in place, which keeps the names of the parameters, and try it on two images. If that fails, as it
        does without a C++ compiler, warn once and go on uncompiled."""
        try:
            self._to_compile.compile()
            with torch.no_grad():
                run(images[:2])
        except Exception as error:  # compilers fail in many ways
            self._to_compile._compiled_call_impl = None
            if out_of_memory(error):
                raise
            self.passes.compiled = False
            reason = (str(error).strip() or type(error).__name__).split("\n")[0]
            log.warning(f"MODEL.COMPILE has no effect, compiling failed: {reason}")


# -- Memory ------------------------------------------------------------------------------------------------------------


def images_that_fit(run: Callable[[Tensor], Tensor], probe: Tensor) -> int:
    """How many images like those of ``probe`` a pass of ``run`` can take in MEMORY_SHARE of the free memory, 1 or more

    The part that does not grow with the number of images is counted for each of them, so the answer is rather too low.
    """
    run(probe)  # what only the first pass allocates should not count
    each = peak_bytes(lambda: run(probe), probe.device) / len(probe)
    return max(1, int(MEMORY_SHARE * free_bytes(probe.device) / max(1, each)))


def free_bytes(device: torch.device) -> int:
    """What the GPU has free, and what torch holds of it without using it."""
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return torch.cuda.mem_get_info(device)[0] + unused


def peak_bytes(work: Callable[[], object], device: torch.device) -> int:
    """The most that ``work`` allocates on the GPU at any moment."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    work()
    return torch.cuda.max_memory_allocated(device) - before


def out_of_memory(error: BaseException) -> bool:
    """Whether the device, or a library that computes on it, could not get memory."""
    words = ("CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED", "CUDA error: out of memory")
    return isinstance(error, torch.cuda.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


def channels_last(visual: nn.Module) -> None:
    """Lay out a ResNet's kernels the way that half-precision convolutions on GPUs read them; a ViT stays as it is.

    Activations follow the kernels. The numbers do not change.
    """
    if not hasattr(visual, "transformer"):
        visual.to(memory_format=torch.channels_last)
