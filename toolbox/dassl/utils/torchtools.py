"""Checkpoints, weights, layers.

A checkpoint holds plain data only (tensors, numbers, strings, lists, dictionaries), so it can be read with
`torch.load(..., weights_only=True)`, which runs no code from the file.
"""

from __future__ import annotations

import collections
import contextlib
import logging
import os
import pickle
import random
import shutil
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from .tools import mkdir_if_missing, tolist_if_not

log = logging.getLogger("dassl")

__all__ = [
    "count_num_param",
    "get_rng_state",
    "init_network_weights",
    "load_checkpoint",
    "load_pretrained_weights",
    "open_all_layers",
    "open_specified_layers",
    "resume_from_checkpoint",
    "save_checkpoint",
    "set_rng_state",
]

# Upstream Dassl pickles the scheduler that follows a warm-up, and with it the optimizer, into every such checkpoint.
# These classes only store what they are given, so files that hold nothing else can still be read safely (but for
# defaultdict, which would call a function of the file's choice; a plain dictionary takes its place).
_UPSTREAM_PICKLES = [
    (lambda *factory: {}, "collections.defaultdict"),
    dict,
    torch.optim.lr_scheduler.CosineAnnealingLR,
    torch.optim.lr_scheduler.MultiStepLR,
    torch.optim.lr_scheduler.StepLR,
    torch.optim.Adam,
    torch.optim.AdamW,
    torch.optim.RAdam,
    torch.optim.RMSprop,
    torch.optim.SGD,
]


def _plain(value: object) -> object:
    """NumPy numbers, which `weights_only` refuses, as Python's, at any depth."""
    if isinstance(value, np.generic):
        return value.item()
    if type(value) in (dict, collections.OrderedDict):
        return type(value)((k, _plain(v)) for k, v in value.items())
    if type(value) in (list, tuple):
        return type(value)(_plain(v) for v in value)
    return value


def _without_module(state_dict: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Keys as the bare model has them (nn.DataParallel puts "module." in front)."""
    return collections.OrderedDict((k.removeprefix("module."), v) for k, v in state_dict.items())


def save_checkpoint(
    state: dict,
    save_dir: str,
    is_best: bool = False,
    remove_module_from_keys: bool = True,
    model_name: str = "",
) -> None:
    """Save `state` as `save_dir/model.pth.tar-<epoch>` and name it in `save_dir/checkpoint`, each file atomically.

    Args:
        state: plain data with at least `state_dict` and `epoch`.
        save_dir: folder, made if missing.
        is_best: also copy it to `model-best.pth.tar`.
        remove_module_from_keys: strip the "module." of nn.DataParallel.
        model_name: file name to use instead.
    """
    mkdir_if_missing(save_dir)
    state = _plain(dict(state))
    if remove_module_from_keys:
        state["state_dict"] = _without_module(state["state_dict"])

    model_name = model_name or f"model.pth.tar-{state['epoch']}"
    fpath = os.path.join(save_dir, model_name)
    torch.save(state, f"{fpath}.part")
    os.replace(f"{fpath}.part", fpath)
    log.info(f"Checkpoint saved to {fpath}")

    pointer = os.path.join(save_dir, "checkpoint")
    with open(f"{pointer}.part", "w", encoding="utf-8") as file:
        file.write(f"{model_name}\n")
    os.replace(f"{pointer}.part", pointer)

    if is_best:
        best = os.path.join(save_dir, "model-best.pth.tar")
        shutil.copy(fpath, f"{best}.part")
        os.replace(f"{best}.part", best)
        log.info(f'Best checkpoint saved to "{best}"')


def load_checkpoint(fpath: str) -> dict:
    """Read a checkpoint; tensors come to the CPU where there is no GPU.

    Raises:
        ValueError: no path.
        FileNotFoundError: no such file.
        pickle.UnpicklingError: the file would have to run code to be read.
    """
    if fpath is None:
        raise ValueError("File path is None")
    if not os.path.exists(fpath):
        raise FileNotFoundError(f'File is not found at "{fpath}"')
    map_location = None if torch.cuda.is_available() else "cpu"
    # before torch 2.6 such files cannot be allowed for and end in the error below
    newer = torch.__version__ >= (2, 6)
    allow = torch.serialization.safe_globals(_UPSTREAM_PICKLES) if newer else contextlib.nullcontext()
    try:
        with allow:
            return torch.load(fpath, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        raise pickle.UnpicklingError(
            f'"{fpath}" is damaged or holds more than plain data, and reading it could run code: {error}'
        ) from error


def get_rng_state() -> dict:
    """The states of all random generators as plain data, for a checkpoint."""
    name, keys, *rest = np.random.get_state()
    return {
        "python": random.getstate(),
        "numpy": [name, torch.from_numpy(keys.astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def set_rng_state(state: dict) -> None:
    """Put back what `get_rng_state` returned; GPU states only where the number of GPUs is the same."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if len(state["cuda"]) == torch.cuda.device_count() > 0:
        torch.cuda.set_rng_state_all([s.cpu() for s in state["cuda"]])


def resume_from_checkpoint(
    fdir: str,
    model: nn.Module,
    optimizer: torch.optim.Optimizer | None = None,
    scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
    scaler: torch.amp.GradScaler | None = None,
) -> int:
    """Load the checkpoint that `fdir/checkpoint` names, with the states of the random generators if it has them.

    Returns:
        The number of finished epochs, i.e. the index of the next one.
    """
    with open(os.path.join(fdir, "checkpoint"), encoding="utf-8") as file:
        fpath = os.path.join(fdir, file.readline().strip())
    log.info(f'Loading checkpoint from "{fpath}"')
    checkpoint = load_checkpoint(fpath)
    model.load_state_dict(checkpoint["state_dict"])
    log.info("Loaded model weights")
    if optimizer is not None and checkpoint.get("optimizer") is not None:
        optimizer.load_state_dict(checkpoint["optimizer"])
        log.info("Loaded optimizer")
    if scheduler is not None and checkpoint.get("scheduler") is not None:
        scheduler.load_state_dict(checkpoint["scheduler"])
        log.info("Loaded scheduler")
    if scaler is not None and checkpoint.get("scaler"):
        scaler.load_state_dict(checkpoint["scaler"])
    if checkpoint.get("rng") is not None:
        set_rng_state(checkpoint["rng"])
    log.info(f"Previous epoch: {checkpoint['epoch']}")
    return checkpoint["epoch"]


def load_pretrained_weights(model: nn.Module, weight_path: str) -> None:
    """Load what fits from a checkpoint or bare state dict: same name and shape. Says what did not fit."""
    checkpoint = load_checkpoint(weight_path)
    weights = _without_module(checkpoint.get("state_dict", checkpoint))
    own = model.state_dict()
    matched = {k: v for k, v in weights.items() if k in own and own[k].shape == v.shape}
    model.load_state_dict({**own, **matched})
    if not matched:
        log.warning(f'nothing in "{weight_path}" fits the model (names and shapes); no weights were loaded')
        return
    log.info(f'Successfully loaded pretrained weights from "{weight_path}"')
    if discarded := [k for k in weights if k not in matched]:
        log.info(f"Layers discarded due to unmatched keys or size: {discarded}")


def open_all_layers(model: nn.Module) -> None:
    """Train everything."""
    model.train()
    for parameter in model.parameters():
        parameter.requires_grad_(True)


def open_specified_layers(model: nn.Module, open_layers: str | list[str]) -> None:
    """Train the named direct children of `model`; freeze the others and put them in evaluation mode.

    Raises:
        ValueError: the model has no such child.
    """
    if isinstance(model, nn.DataParallel):
        model = model.module
    children = dict(model.named_children())
    open_layers = tolist_if_not(open_layers)
    if unknown := [name for name in open_layers if name not in children]:
        raise ValueError(f"{unknown} are not layers of the model, which has {list(children)}")
    for name, child in children.items():
        child.train(name in open_layers)
        for parameter in child.parameters():
            parameter.requires_grad_(name in open_layers)


def count_num_param(model: nn.Module | None = None, params: object = None) -> int:
    """Number of parameters of a model, or of an iterable of parameters or of parameter groups."""
    if model is not None:
        params = model.parameters()
    if params is None:
        raise ValueError("either model or params must be given")
    return sum(
        count_num_param(params=p["params"]) if isinstance(p, dict) else p.numel()
        for p in ([params] if isinstance(params, torch.Tensor) else params)
    )


def init_network_weights(model: nn.Module, init_type: str = "normal", gain: float = 0.02) -> None:
    """Initialise convolution, linear and norm layers: normal, xavier, kaiming or orthogonal; biases 0.

    Raises:
        NotImplementedError: another `init_type`.
    """
    fill = {
        "normal": lambda w: nn.init.normal_(w, 0.0, gain),
        "xavier": lambda w: nn.init.xavier_normal_(w, gain=gain),
        "kaiming": lambda w: nn.init.kaiming_normal_(w, a=0, mode="fan_in"),
        "orthogonal": lambda w: nn.init.orthogonal_(w, gain=gain),
    }
    if init_type not in fill:
        raise NotImplementedError(f"initialization method {init_type} is not one of {sorted(fill)}")
    for module in model.modules():
        if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
            fill[init_type](module.weight)
        elif isinstance(module, (nn.modules.batchnorm._BatchNorm, nn.InstanceNorm1d, nn.InstanceNorm2d)):
            if module.weight is not None:
                nn.init.constant_(module.weight, 1.0)
        else:
            continue
        if module.bias is not None:
            nn.init.constant_(module.bias, 0.0)
