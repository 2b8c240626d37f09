"""Trained models on the Hugging Face Hub: the folder of ``fairclip.predict.folder``, uploaded and downloaded.

Who may do so is the package's affair: `hf auth login`.
"""

import tempfile
from pathlib import Path
from types import ModuleType

from fairclip.core.errors import UserError
from fairclip.core.reading import printable
from fairclip.predict.folder import CARD, FACTS, MODEL, read_folder, write_folder
from fairclip.predict.runs import TrainedModel


def hub() -> ModuleType:
    """The package huggingface_hub. Raises UserError where it is missing."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise UserError(
            "sharing on the Hugging Face Hub needs a package: pip install huggingface_hub safetensors"
        ) from error
    return huggingface_hub


def push(trained: TrainedModel, repo_id: str, private: bool = False) -> str:
    """Upload a model to a repository of the hub, which is made if it is not there. Returns its address.

    A README.md that the repository has stays as it is: its owner may have written in it.

    Raises:
        UserError: no package, no permission, no network; what the hub said.
    """
    client = hub()
    with tempfile.TemporaryDirectory() as name:
        write_folder(trained, Path(name))
        try:
            client.create_repo(repo_id, private=private, exist_ok=True)
            kept = [CARD] if client.file_exists(repo_id, CARD) else None
            client.upload_folder(
                repo_id=repo_id,
                folder_path=name,
                commit_message="Upload a model of fairclip",
                ignore_patterns=kept,
            )
        except Exception as error:  # of the hub and of its HTTP library, which differ from release to release
            raise UserError(f"cannot upload to {repo_id}: {first_line(error)}") from error
    return f"https://huggingface.co/{repo_id}"


def pull(repo_id: str, revision: str | None = None, backbone: str = "") -> TrainedModel:
    """The model of a repository of the hub, downloaded once. Its files are checked like those of any folder.

    Raises:
        UserError: no package, no such repository, no network; files that are not a model's.
    """
    client = hub()
    try:
        place = client.snapshot_download(repo_id, revision=revision, allow_patterns=[FACTS, MODEL])
    except Exception as error:  # as above
        raise UserError(f"cannot download {repo_id}: {first_line(error)}") from error
    snapshot = Path(place)
    # The hub's cache keeps files beside its snapshots (<repository>/snapshots/<revision>), which are links to them.
    cached = snapshot.parent.name == "snapshots"
    return read_folder(snapshot, backbone, snapshot.parents[1] if cached else snapshot)


def first_line(error: Exception) -> str:
    return printable((str(error).strip() or type(error).__name__).split("\n")[0])
