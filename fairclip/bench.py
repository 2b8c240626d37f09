"""How fast FAIR is on this machine and what sets the pace: fair bench [--json FILE]

Trains FAIR itself on photos that it makes (500 x 375, JPEG), with random weights of the backbone's shape unless
OpenAI's are on disk: neither decides the speed. Measures, each part by its name for --only:

    step      a step on a given batch, beside the bare encoder doing the same passes (their quotient: overhead_ratio)
              and beside the floor, the passes' operations at the speed of a large matrix product; peak memory
    pipeline  views a second for one core, beside the plain way: each view decoded from disk, transformed by torchvision
              and normalised by itself, float32 to the device (the quotient: pipeline_speedup)
    growth    how the time of a step grows with crops, classes and batch
    stages    what a step with the loader spends its time on

Figures are medians over repeats, but for the stages: means, because waiting for the loader comes in bursts.
"""

import argparse
import gc
import io
import json
import os
import resource
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms as T
from yacs.config import CfgNode

from fairclip.backbones.openai import BUNDLED, CLIP_CACHE, autocast, clip_module
from fairclip.core.errors import UserError
from fairclip.core.files import atomic
from fairclip.core.places import CONFIGS
from fairclip.core.plugins import import_plugins
from fairclip.core.toolbox import use_dassl
from fairclip.run import config, launch
from fairclip.run.results import commit, versions
from fairclip.views.loading import cores

GROWTH = {"crops": (0, 4, 8, 16), "classes": (10, 100, 1000)}
PHOTO = (500, 375)
PHOTOS = 48  # different ones; more files than that repeat them

# OpenAI's: width of the features, side of the images, then the image tower's layers, width and patches.
SHAPES: dict[str, tuple[int, int, Any, int, int | None]] = {
    "ViT-B/32": (512, 224, 12, 768, 32),
    "ViT-B/16": (512, 224, 12, 768, 16),
    "ViT-L/14": (768, 224, 24, 1024, 14),
    "RN50": (1024, 224, (3, 4, 6, 3), 64, None),
}


# -- What is worked on: photos, a CLIP, trainers -----------------------------------------------------------------------


def photo(rng: np.random.Generator) -> Image.Image:
    """Something with a photo's statistics: noise at all scales, stronger the coarser, and shapes with sharp edges."""
    width, height = PHOTO
    pixels = np.full((height, width, 3), 128.0)
    for cells in (3, 6, 12, 25, 50, 100, 200, 400):
        noise = rng.normal(128, 60 * (3 / cells) ** 0.3, (cells * height // width + 1, cells, 3)).clip(0, 255)
        layer = Image.fromarray(noise.astype(np.uint8)).resize(PHOTO, Image.Resampling.BICUBIC)
        pixels += np.asarray(layer, dtype=np.float64) - 128
    image = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(12):
        x, y, w, h = (int(v) for v in rng.integers((0, 0, 10, 10), (width, height, 120, 120)))
        shape = draw.ellipse if rng.random() < 0.5 else draw.rectangle
        shape((x, y, x + w, y + h), fill=tuple(int(v) for v in rng.integers(0, 256, 3)))
    return image


@contextmanager
def caching_in(folder: str) -> Iterator[None]:
    """Keep what made-up images and weights leave behind out of the user's cache."""
    before = os.environ.get("FAIR_CACHE")
    os.environ["FAIR_CACHE"] = folder
    try:
        yield
    finally:
        del os.environ["FAIR_CACHE"]
        os.environ |= {"FAIR_CACHE": before} if before is not None else {}


def weights_of(backbone: str, folder: Path) -> tuple[str, str]:
    """What MODEL.BACKBONE.NAME must say for this backbone, and "trained" or "random".

    Raises:
        UserError: it is no backbone that is known here.
    """
    if backbone in BUNDLED or Path(backbone).expanduser().is_file():
        return backbone, "trained"
    if backbone not in SHAPES:
        raise UserError(
            f"--backbone {backbone}: choose one of {', '.join((*SHAPES, *BUNDLED))}, or give a CLIP checkpoint's file"
        )
    url = clip_module()._MODELS[backbone]
    downloaded = Path(os.environ.get("FAIR_CACHE") or CLIP_CACHE).expanduser() / Path(url).name
    if downloaded.is_file():
        return str(downloaded), "trained"

    from clip.model import CLIP

    features, side, layers, width, patch = SHAPES[backbone]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        # The text tower does not take part in a step, so a small one will do.
        model = CLIP(
            embed_dim=features,
            image_resolution=side,
            vision_layers=layers,
            vision_width=width,
            vision_patch_size=patch,
            context_length=77,
            vocab_size=49408,
            transformer_width=64,
            transformer_heads=1,
            transformer_layers=1,
        )
    path = folder / f"{backbone.replace('/', '-')}.pt"
    torch.save(model.state_dict(), path)
    return str(path), "random"


class Workshop:
    """FAIR's trainers, as train.py builds them, on photos in a folder."""

    def __init__(self, folder: Path, backbone: str, device: str, prec: str) -> None:
        self.folder, self.backbone, self.device, self.prec = folder, backbone, device, prec
        self.data = folder / "data"
        rng = np.random.default_rng(0)
        self._photos = []
        for _ in range(PHOTOS):
            with io.BytesIO() as stream:
                photo(rng).save(stream, format="JPEG", quality=90)
                self._photos.append(stream.getvalue())
        self._write("test/class 0/0.jpg", self._photos[0])
        self.modules, _ = import_plugins("trainers", "datasets")

    @property
    def photo_bytes(self) -> int:
        """Size of a photo's file, on average."""
        return sum(map(len, self._photos)) // len(self._photos)

    def _write(self, name: str, content: bytes) -> None:
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)

    def trainer(self, batch: int, crops: int, classes: int, batches: int = 1, **settings: Any) -> Any:
        """A FAIR about to make its first step of an epoch of so many batches. Settings: config keys, "__" for a dot."""
        for index in range(batch * batches):
            self._write(f"train/{index:05}.jpg", self._photos[index % PHOTOS])
        for other in sorted((self.data / "train").iterdir())[batch * batches :]:
            other.unlink()
        self._write("classes.txt", "".join(f"class {i}\n" for i in range(classes)).encode())
        settings = {
            "DATASET.NAME": "ImageFolder",
            "USE_CUDA": self.device == "cuda",
            "DATALOADER.NUM_WORKERS": 0,
            "DATALOADER.TRAIN_X.BATCH_SIZE": batch,
            "TRAINER.FAIR.PREC": self.prec,
            "TRAINER.FAIR.N_CROPS": crops,
            "TRAINER.FAIR.TOP_K": max(1, min(4, crops)),
            **{k.replace("__", "."): v for k, v in settings.items()},
        }
        argv = [
            "--root",
            str(self.data),
            "--output-dir",
            str(self.folder / "run"),
            "--trainer",
            "FAIR",
            "--seed",
            "1",
            "--backbone",
            self.backbone,
            "--config-file",
            str(CONFIGS / "trainers/FAIR/vit_b32.yaml"),
            *(str(word) for item in settings.items() for word in item),
        ]
        from dassl.engine import build_trainer

        gc.collect()  # the trainer before this one is full of cycles
        with redirect_stdout(io.StringIO()):
            trainer = build_trainer(config.build_cfg(launch.parse_args(argv), self.modules))
            trainer.before_train()
            trainer.before_epoch()
            trainer.set_model_mode("train")
        return trainer


# -- Measuring ---------------------------------------------------------------------------------------------------------


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(device: torch.device, work: Callable[[], Any]) -> float:
    synchronize(device)
    start = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - start


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        try:
            Path("/proc/self/clear_refs").write_text("5")
        except OSError:  # not Linux, or not allowed: the peak is then that of the whole process
            pass


def peak_memory(device: torch.device) -> int:
    """Bytes: what torch had allocated on the GPU, on a CPU what the process had in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        return 1024 * int(line.split()[1])
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def matmul_speed(device: torch.device, prec: str, side: int) -> float:
    """Operations a second (a multiplication and an addition are two) of a product of two square matrices, at best."""
    dtype = {"fp32": torch.float32, "amp": torch.float16, "bf16": torch.bfloat16}[prec]
    a = torch.randn(side, side, device=device).to(dtype)
    return 2 * side**3 / min(seconds(device, lambda: a @ a) for _ in range(6))


def operations(visual: nn.Module, image: Tensor, views: int) -> int:
    """Operations of the passes for one training image: views - 1 without gradients, one with."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        visual(image)
    forward = counter.get_total_flops()
    with FlopCounterMode(display=False) as counter:
        visual(image).sum().backward()
    return (views - 1) * forward + counter.get_total_flops()


class Bare:
    """The encoder alone: a step's passes on views that are there already, normalised and on the device.

    Args:
        views: [B, 2 + N, 3, S, S] as FAIR has them: weak, strong, crops.
    """

    def __init__(self, visual: nn.Module, views: Tensor, prec: str) -> None:
        self.visual, self.prec, self.strong = visual, prec, views[:, 1].contiguous()
        self.others = torch.cat([views[:, :1], views[:, 2:]], dim=1).transpose(0, 1).flatten(0, 1)
        self.learned = [p for p in visual.parameters() if p.requires_grad]

    def step(self, chunk: int) -> None:
        """``chunk``: images in a pass without gradients."""
        for parameter in self.learned:
            parameter.grad = None
        with torch.no_grad(), autocast(self.strong.device, self.prec):
            for part in self.others.split(chunk):
                self.visual(part)
        with autocast(self.strong.device, self.prec):
            features = self.visual(self.strong)
        features.float().sum().backward()


def measure_step(shop: Workshop, args: argparse.Namespace) -> dict[str, Any]:
    trainer = shop.trainer(args.batch, args.crops, args.classes)
    device, visual = trainer.device, trainer.model.visual
    batch = next(iter(trainer.train_loader_x))
    reset_peak(device)
    at_rest = peak_memory(device)
    trainer.forward_backward(batch)  # warms up
    synchronize(device)
    peak = peak_memory(device)

    bare = Bare(visual, trainer.pixels(batch["img"]), args.prec)
    chunks = (args.batch, 512)  # a view of the batch a time, or as many as fit: what the faster encoder does is the bar
    times = [
        (
            seconds(device, lambda: trainer.forward_backward(batch)),
            *(seconds(device, lambda chunk=chunk: bare.step(chunk)) for chunk in chunks),
        )
        for _ in range(args.repeats)
    ]
    step, *encoder = map(median, zip(*times, strict=True))
    flops = operations(visual, bare.strong[:1], trainer.views_per_image) * args.batch
    speed = matmul_speed(device, args.prec, args.matmul)
    return {
        "step_seconds": step,
        "encoder_seconds": min(encoder),
        "encoder_seconds_by_chunk": dict(zip(map(str, chunks), encoder, strict=True)),
        # Neighbours in time are compared, so that what else the machine does weighs on both.
        "overhead_ratio": max(median(t[0] / t[1 + i] for t in times) for i in range(len(chunks))),
        "images_per_second": args.batch / step,
        "operations_per_image": flops / args.batch,
        "matmul_operations_per_second": speed,
        "floor_seconds": flops / speed,
        "memory_peak_bytes": peak,
        "memory_at_rest_bytes": at_rest,
    }


class PlainViews(Dataset):
    """Views the plain way: each decoded from the file anew, by torchvision's transforms on Pillow images, as floats."""

    def __init__(self, paths: Sequence[str], crops: int, inputs: CfgNode) -> None:
        size, bicubic = inputs.SIZE[0], {"interpolation": T.InterpolationMode.BICUBIC}
        end = [T.ToTensor(), T.Normalize(inputs.PIXEL_MEAN, inputs.PIXEL_STD)]
        weak = [T.Resize(size, **bicubic), T.RandomCrop(size), T.RandomHorizontalFlip(), *end]
        strong = [T.RandomResizedCrop(size, (0.5, 1.0), **bicubic), T.RandomHorizontalFlip(), T.RandAugment(2, 9), *end]
        crop = [T.RandomResizedCrop(size, (0.25, 0.8), (1.0, 1.0), **bicubic), *end]
        self.paths = paths
        self.transforms = [T.Compose(steps) for steps in (weak, strong, *crops * [crop])]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return torch.stack([transform(Image.open(self.paths[index]).convert("RGB")) for transform in self.transforms])


def measure_pipeline(shop: Workshop, args: argparse.Namespace) -> dict[str, Any]:
    batches = args.repeats + 1  # the first one warms up
    trainer = shop.trainer(args.batch, args.crops, args.classes, batches)
    device, cfg = trainer.device, trainer.cfg
    paths = [item.impath for item in trainer.dm.dataset.train_x]
    plain = PlainViews(paths, args.crops, cfg.INPUT)
    ways = {
        "ours": (trainer.train_loader_x, lambda batch: trainer.pixels(batch["img"])),
        "plain": (DataLoader(plain, args.batch, shuffle=True), lambda batch: batch.to(device)),
    }
    if "CACHE" in cfg.DATALOADER:
        cached = shop.trainer(args.batch, args.crops, args.classes, batches, DATALOADER__CACHE="ram")
        for _ in cached.train_loader_x:  # fills the cache
            pass
        ways["cached"] = (cached.train_loader_x, lambda batch: cached.pixels(batch["img"]))
    with threads(1):
        running = {name: (iter(loader), to_device) for name, (loader, to_device) in ways.items()}
        times = [
            {
                name: seconds(device, lambda it=it, to_device=to_device: to_device(next(it)))
                for name, (it, to_device) in running.items()
            }
            for _ in range(batches)
        ][1:]
    views = args.batch * trainer.views_per_image
    return {
        "views_per_second": {name: views / median(t[name] for t in times) for name in ways},
        "pipeline_speedup": median(t["plain"] / t["ours"] for t in times),
        "photo_bytes": shop.photo_bytes,
    }


def measure_growth(shop: Workshop, args: argparse.Namespace) -> dict[str, Any]:
    base = {"batch": args.growth_batch, "crops": args.crops, "classes": args.classes}
    growth = {
        "crops": args.growth_crops,
        "classes": args.growth_classes,
        "batch": [args.growth_batch * factor for factor in (1, 2, 4)],
    }
    known: dict[tuple, float] = {}
    table: dict[str, dict[str, float]] = defaultdict(dict)
    for name, values in growth.items():
        for value in values:
            point = base | {name: value}
            key = tuple(point.values())
            if key not in known:
                trainer = shop.trainer(**point)
                batch = next(iter(trainer.train_loader_x))
                times = [
                    seconds(trainer.device, lambda t=trainer, b=batch: t.forward_backward(b))
                    for _ in range(args.repeats + 1)
                ][1:]
                known[key] = median(times)
            table[name][str(value)] = known[key]
    return {"growth_base": base, "growth_seconds": dict(table)}


class Stopwatch:
    """Time by stage. A stage inside another one stops the other's clock, so that the stages add up to the whole."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.spent = device, defaultdict(float)
        self.open: list[str] = []
        self.last = 0.0

    def _charge(self) -> None:
        synchronize(self.device)  # each stage waits for its own work: on a GPU the sum is above an undisturbed step
        now = time.perf_counter()
        if self.open:
            self.spent[self.open[-1]] += now - self.last
        self.last = now

    def enter(self, stage: str) -> None:
        self._charge()
        self.open.append(stage)

    def leave(self) -> None:
        self._charge()
        self.open.pop()

    def timed(self, stage: str, work: Callable) -> Callable:
        def inside(*args: Any, **kwargs: Any) -> Any:
            self.enter(stage)
            try:
                return work(*args, **kwargs)
            finally:
                self.leave()

        return inside

    def watch(self, trainer: Any) -> None:
        """Time the parts of this trainer's steps."""
        trainer.pixels = self.timed("to device, normalise", trainer.pixels)
        trainer.descend = self.timed("backward", trainer.descend)
        trainer.forward_backward = self.timed("scores, weights, losses", trainer.forward_backward)
        visual = trainer.model.visual
        visual.register_forward_pre_hook(
            lambda *_: self.enter("strong view, forward" if torch.is_grad_enabled() else "views without gradients")
        )
        visual.register_forward_hook(lambda *_: self.leave())
        (name,) = trainer.get_model_names()
        trainer._optims[name].register_step_pre_hook(lambda *_: self.enter("optimizer"))
        trainer._optims[name].register_step_post_hook(lambda *_: self.leave())


def measure_stages(shop: Workshop, args: argparse.Namespace) -> dict[str, Any]:
    trainer = shop.trainer(args.batch, args.crops, args.classes, args.repeats + 1, DATALOADER__NUM_WORKERS=args.workers)
    watch = Stopwatch(trainer.device)
    watch.watch(trainer)
    load = watch.timed("wait for the loader", next)
    batches = iter(trainer.train_loader_x)
    trainer.forward_backward(load(batches))  # warms up, and starts the workers
    watch.spent.clear()
    total = seconds(trainer.device, lambda: [trainer.forward_backward(load(batches)) for _ in range(args.repeats)])
    return {
        "stages_step_seconds": total / args.repeats,
        "stages_seconds": {stage: spent / args.repeats for stage, spent in watch.spent.items()},
        "workers": trainer.train_loader_x.num_workers,
    }


PARTS = {"step": measure_step, "pipeline": measure_pipeline, "growth": measure_growth, "stages": measure_stages}


# -- Command line ------------------------------------------------------------------------------------------------------


def report(facts: dict[str, Any]) -> str:
    """The figures for people."""
    f = facts
    lines = [
        f"{f['backbone']} ({f['weights']} weights), batch {f['batch']}, {f['crops']} crops, {f['classes']} classes, "
        f"{f['prec']}, {f['device_name']}, {f['threads']} threads, {f['repeats']} repeats"
    ]
    if "overhead_ratio" in f:
        lines += [
            f"step            {f['step_seconds']:.4g} s, {f['images_per_second']:.4g} training images/s",
            f"bare encoder    {f['encoder_seconds']:.4g} s, overhead ratio {f['overhead_ratio']:.3f}",
            f"floor           {f['floor_seconds']:.4g} s: {f['operations_per_image'] / 1e9:.4g} GFLOP an image, matrix "
            f"products at {f['matmul_operations_per_second'] / 1e9:.4g} GFLOP/s",
            f"peak memory     {f['memory_peak_bytes'] / 2**20:.0f} MiB, {f['memory_at_rest_bytes'] / 2**20:.0f} of "
            "them before the first step",
        ]
    if "pipeline_speedup" in f:
        rates = ", ".join(f"{name} {rate:.4g}" for name, rate in f["views_per_second"].items())
        lines += [f"views/s a core  {rates}; speedup {f['pipeline_speedup']:.2f} ({f['photo_bytes'] // 1000} kB JPEGs)"]
    if "growth_seconds" in f:
        base = ", ".join(f"{name} {value}" for name, value in f["growth_base"].items())
        lines += [f"growth          seconds a step, from {base}"]
        for name, times in f["growth_seconds"].items():
            lines += [f"  {name:<14}" + ", ".join(f"{value}: {spent:.4g}" for value, spent in times.items())]
    if "stages_seconds" in f:
        step = f["stages_step_seconds"]
        lines += [f"stages          of a step with the loader, {step:.4g} s, {f['workers']} workers"]
        for stage, spent in f["stages_seconds"].items():
            lines += [f"  {stage:<26}{spent:10.4g} s {100 * spent / step:5.1f} %"]
    return "\n".join(lines)


def natural(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not above 0")
    return number


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--backbone", default="ViT-B/32", help=f"{', '.join((*SHAPES, *BUNDLED))}, or a checkpoint's file")
    add("--batch", type=natural, help="training images in a step (default: 16, on a GPU 64)")
    add("--crops", type=int, default=8, help="N (default: 8)")
    add("--classes", type=natural, default=100, help="K (default: 100)")
    add("--prec", default="fp32", choices=("fp32", "amp", "bf16"), help="default: fp32")
    add("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    add("--repeats", type=natural, help="default: 3, on a GPU 20")
    add("--workers", type=int, default=8, help="of the loader in stages, at most one a core (default: 8)")
    add("--only", nargs="+", choices=PARTS, default=tuple(PARTS), metavar="PART", help=", ".join(PARTS))
    add("--json", type=Path, metavar="FILE", help="write all figures to it")
    add("--quick", action="store_true", help="tiny, small and few, whatever else is given: that it works, not how fast")


def complete(args: argparse.Namespace) -> argparse.Namespace:
    """Fill in the numbers that depend on the device.

    Raises:
        UserError: they cannot be met.
    """
    if args.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: torch sees no GPU here")
    if args.crops < 0 or args.workers < 0:
        raise UserError("--crops and --workers are at least 0")
    gpu = args.device != "cpu" and torch.cuda.is_available()
    args.device = "cuda" if gpu else "cpu"
    if args.quick:
        args.backbone, args.batch, args.crops, args.classes, args.repeats, args.workers = "tiny", 4, 2, 5, 1, 0
    args.batch = args.batch or (64 if gpu else 16)
    args.repeats = args.repeats or (20 if gpu else 3)
    args.growth_crops, args.growth_classes = ((0, 2), (2, 5)) if args.quick else GROWTH.values()
    args.growth_batch = max(1, args.batch // 4)
    args.matmul = 256 if args.quick else 8192 if gpu else 1536
    return args


def run(args: argparse.Namespace) -> dict[str, Any]:
    """All figures of the parts asked for."""
    use_dassl(announce=False)
    torch.backends.cudnn.deterministic = True  # as train.py with a seed
    facts = {name: getattr(args, name) for name in ("backbone", "batch", "crops", "classes", "prec", "repeats")} | {
        "device": args.device,
        "device_name": torch.cuda.get_device_name() if args.device == "cuda" else f"{cores()} CPU cores",
        "threads": torch.get_num_threads(),
        "quick": args.quick,
        "versions": versions(),
        "commit": commit(),
    }
    with tempfile.TemporaryDirectory(prefix="bench-") as folder:
        backbone, facts["weights"] = weights_of(args.backbone, Path(folder))
        with caching_in(folder):
            shop = Workshop(Path(folder), backbone, args.device, args.prec)
            for part, measure in PARTS.items():
                if part in args.only:
                    facts |= measure(shop, args)
    return facts


def main(args: argparse.Namespace) -> None:
    args = complete(args)
    facts = run(args)
    if args.json:
        with atomic(args.json) as temporary:
            temporary.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    print(report(facts))
