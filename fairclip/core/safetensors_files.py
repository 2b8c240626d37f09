"""Files of the package safetensors, which is optional: whoever has none of them does without it."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from fairclip.core.errors import UserError
from fairclip.core.reading import in_a_line

NEEDED = "needs the package safetensors: pip install safetensors"


def plain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors on the CPU, each with memory of its own."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


def write_safetensors(state: Mapping[str, Tensor], file: Path, about: dict[str, str] | None = None) -> None:
    """Write tensors, wherever they are, and text ``about`` them. Raises UserError where the package is missing."""
    try:
        from safetensors.torch import save_file
    except ImportError as error:
        raise UserError(f"a .safetensors file {NEEDED}") from error
    save_file(plain(state), file, about)


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """The tensors in a file, on the CPU. Raises UserError where the package is missing, and for a damaged file."""
    try:
        from safetensors.torch import load_file
    except ImportError as error:
        raise UserError(f"{file} {NEEDED}") from error
    try:
        return load_file(file)
    except Exception as error:  # the package has errors of its own
        raise UserError(f"{file} is not a whole .safetensors file: {in_a_line(error)}") from error
