"""Pretrains a small CLIP on image-caption pairs from the renderer: `tiny` (ViT tower) or `tiny_rn` (ResNet tower).

    PYTHONPATH=. python scripts/pretrain_tiny.py tiny_rn     # about 12 minutes on two CPU cores, rendering included
    PYTHONPATH=. python scripts/pretrain_tiny.py tiny        # about 45 minutes; starts from tiny_rn's text tower

The model is OpenAI's architecture (``clip.model.CLIP``), the loss is contrastive. The pairs are random part
combinations and the named models of catalogues 0 to 3, in bright light. More than half of the views are close-ups, and
their captions name only what is visible. No image of the target data set occurs: other random streams, another light.

Everything is a function of ``--seed``. The state is saved every ``--save-every`` steps, and the same command goes on
from there. On Linux, MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=8000000000 in the environment spares much of the time.
"""

from __future__ import annotations

import argparse
import functools
import io
import json
import math
import os
import random
import time
import zipfile
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from clip import clip
from clip.model import CLIP
from PIL import Image

from fairclip.backbones.pixels import CLIP_PIXELS
from fairclip.core.bars import bar
from fairclip.core.places import PACKAGE
from fairclip.data.synth.captions import Car, agreement, caption
from fairclip.data.synth.catalogue import BODIES, COLOURS, PARTS, catalogue, random_parts
from fairclip.data.synth.lights import BRIGHT
from fairclip.data.synth.render import SIZE, render

OUT = PACKAGE / "backbones" / "weights"
INPUT = 64
MEAN = torch.tensor(CLIP_PIXELS.mean).view(3, 1, 1)
STD = torch.tensor(CLIP_PIXELS.std).view(3, 1, 1)
TEXT = dict(
    embed_dim=128,
    image_resolution=INPUT,
    context_length=77,
    vocab_size=49408,
    transformer_width=128,
    transformer_heads=2,
    transformer_layers=2,
)
TOWERS = {
    "tiny": dict(vision_layers=3, vision_width=128, vision_patch_size=8),
    "tiny_rn": dict(vision_layers=(1, 1, 1, 1), vision_width=16, vision_patch_size=None),
}
STEPS = {"tiny": 7000, "tiny_rn": 2600}
MUON_LR = 0.02
NAMED_SEEDS = range(4)  # catalogues whose model names occur in captions
NAMED_SHARE = 0.4
# The text tower is kept as its warm-up left it for this share of the steps. Trained with an image tower that cannot yet
# read a part, it would merge the captions of that part into one, and the part would never be learned.
TEXT_FROZEN = 0.7


def draw_world(n: int, seed: int) -> list[Car]:
    """n cars: a share of them named models, the others random part combinations."""
    rng = random.Random(f"pretraining-world-{seed}")
    models = named_models()
    cars = []
    for _ in range(n):
        colour = rng.choice(list(COLOURS))
        if rng.random() < NAMED_SHARE:
            index = rng.randrange(len(models))
            cars.append(Car(models[index].body, models[index].values, colour, index))
        else:
            cars.append(Car(rng.choice(BODIES), random_parts(rng), colour))
    return cars


def named_models() -> list:
    return [model for seed in NAMED_SEEDS for model in catalogue(seed)]


def _draw_shard(job: tuple[list[Car], int]) -> tuple[np.ndarray, list[dict]]:
    cars, seed = job
    rng = random.Random(f"pretraining-pixels-{seed}")
    images, boxes = np.empty((len(cars), SIZE, SIZE, 3), np.uint8), []
    for i, car in enumerate(cars):
        image, found = render(car.body, car.parts, rng, clutter=rng.uniform(0, 4), light=BRIGHT, colour=car.colour)
        images[i] = np.asarray(image)
        boxes.append(found)
    return images, boxes


class Pairs:
    """All rendered cars in memory (about 50 kB each); every draw is a new view with a new caption."""

    def __init__(self, n: int, seed: int, workers: int, folder: Path):
        self.cars = draw_world(n, seed)
        pixels, places = folder / f"pixels_{seed}_{n}.npy", folder / f"boxes_{seed}_{n}.json"
        if not places.exists():  # written last: its presence says that both are whole
            _draw_all(self.cars, seed, workers, pixels, places)
        self.images, self.boxes = np.load(pixels, mmap_mode="r"), json.loads(places.read_text())
        self.models = named_models()

    def batch(self, size: int, rng: random.Random) -> tuple[torch.Tensor, list[str], np.ndarray, np.ndarray]:
        """Images [size, 3, 64, 64] (float, normalised), their captions, and the claims and facts of both."""
        views, captions, claims, facts = [], [], [], []
        for _ in range(size):
            i = rng.randrange(len(self.cars))
            box, visible = self._place(self.boxes[i], rng)
            view = Image.fromarray(self.images[i]).resize((INPUT, INPUT), Image.Resampling.BICUBIC, box=box)
            if rng.random() < 0.5:
                view = view.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            views.append(np.asarray(view))
            text, claim, fact = caption(rng, self.cars[i], self.models, visible)
            facts.append(fact)
            if len(captions) < size // 2:  # the agreement of captions and views makes half as many captions suffice
                captions.append(text)
                claims.append(claim)
        x = torch.from_numpy(np.stack(views)).permute(0, 3, 1, 2).float() / 255
        gain = torch.tensor([rng.uniform(0.8, 1.2) for _ in range(size)]).view(-1, 1, 1, 1)
        return ((x * gain).clamp(0, 1) - MEAN) / STD, captions, np.stack(claims), np.stack(facts)

    def paraphrases(self, size: int, rng: random.Random) -> tuple[list[str], list[str], np.ndarray]:
        """Two wordings each of ``size`` captions, and their claims: the same decisions, other words."""
        first, second, claims = [], [], []
        for _ in range(size):
            i = rng.randrange(len(self.cars))
            _, visible = self._place(self.boxes[i], rng)
            decisions = rng.getrandbits(32)
            a, claim, _ = caption(
                random.Random(decisions), self.cars[i], self.models, visible, words=random.Random(rng.getrandbits(32))
            )
            b, _, _ = caption(
                random.Random(decisions), self.cars[i], self.models, visible, words=random.Random(rng.getrandbits(32))
            )
            first.append(a)
            second.append(b)
            claims.append(claim)
        return first, second, np.stack(claims)

    def _place(self, boxes: dict, rng: random.Random) -> tuple[tuple[float, ...], list[str] | None]:
        """Where a view looks, in pixels, and the parts it shows (None: the whole car)."""
        kind = rng.random()
        if kind < 0.4:
            side = rng.uniform(0.85, 1.0)
            x, y, visible = rng.uniform(0, 1 - side), rng.uniform(0, 1 - side), None
        else:
            # Most close-ups are of something: they look at one part, somewhere in the view.
            side = rng.uniform(0.25, 0.5) if kind < 0.75 else rng.uniform(0.45, 0.85)
            part = rng.choice(list(boxes))
            x0, y0, x1, y1 = rng.choice(boxes[part])
            x = min(max(rng.uniform(x1 - side, x0), 0), 1 - side) if x1 - x0 < side else (x0 + x1 - side) / 2
            y = min(max(rng.uniform(y1 - side, y0), 0), 1 - side) if y1 - y0 < side else (y0 + y1 - side) / 2
            x, y = min(max(x, 0), 1 - side), min(max(y, 0), 1 - side)
            others = [p for p in boxes if p != part and any(_inside(b, x, y, side) for b in boxes[p])]
            visible = [part, *others]
        return tuple(v * SIZE for v in (x, y, x + side, y + side)), visible or None


def _draw_all(cars: list[Car], seed: int, workers: int, pixels: Path, places: Path, shard: int = 500) -> None:
    jobs = [(cars[i : i + shard], seed * 1_000_003 + i) for i in range(0, len(cars), shard)]
    images = np.lib.format.open_memmap(pixels, "w+", np.uint8, (len(cars), SIZE, SIZE, 3))
    boxes = []
    with ProcessPoolExecutor(workers) as pool:
        for k, (drawn, found) in enumerate(bar(pool.map(_draw_shard, jobs), "render", total=len(jobs))):
            images[k * shard : k * shard + len(drawn)] = drawn
            boxes += found
    images.flush()
    places.write_text(json.dumps(boxes))


def _inside(box: tuple[float, ...], x: float, y: float, side: float) -> bool:
    """Is at least 85 % of the part's box in the view?"""
    x0, y0, x1, y1 = box
    w = min(x1, x + side) - max(x0, x)
    h = min(y1, y + side) - max(y0, y)
    return w > 0 and h > 0 and w * h >= 0.85 * (x1 - x0) * (y1 - y0)


def encode_text(model: CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """``CLIP.encode_text`` on the first L positions, L being the longest caption: the mask is causal."""
    length = int(tokens.argmax(dim=-1).max()) + 1
    tokens = tokens[:, :length]
    x = (model.token_embedding(tokens) + model.positional_embedding[:length]).permute(1, 0, 2)
    full = model.transformer.resblocks[0].attn_mask
    for block in model.transformer.resblocks:
        block.attn_mask = full[:length, :length]
        x = block(x)
        block.attn_mask = full
    x = model.ln_final(x.permute(1, 0, 2))
    return x[torch.arange(len(x)), tokens.argmax(dim=-1)] @ model.text_projection


def contrastive_loss(scores: torch.Tensor, true: torch.Tensor, false: torch.Tensor) -> torch.Tensor:
    """CLIP's symmetric loss where a caption may be true of several images of the batch.

    Each true pair competes with the false pairs of its row (image to text) and of its column (text to image); with one
    true pair a row and all others false this is CLIP's loss. Pairs that are neither are left out. Every image and every
    caption counts the same, however many true pairs it has: else the vaguest captions would rule.

    Args: scores [B, U], scaled cosines of B images and U captions; true, false [B, U] bool.
    """
    wrong = scores.masked_fill(~false, -torch.inf)
    to_text = F.softplus(wrong.logsumexp(dim=1, keepdim=True) - scores).where(true, 0).sum(1) / true.sum(1).clamp_min(1)
    to_image = F.softplus(wrong.logsumexp(dim=0, keepdim=True) - scores).where(true, 0).sum(0) / true.sum(0).clamp_min(
        1
    )
    return (to_text.mean() + to_image.mean()) / 2


def warm_up_text(model: CLIP, pairs: Pairs, steps: int, batch: int, seed: int) -> torch.Tensor:
    """Teach the text tower to tell captions apart before any image is seen.

    Two wordings of the same claims are a true pair, contradicting captions a false one. Without this the towers find
    one attribute after the other, each after a long plateau. Returns the tokens that occurred, bool [vocabulary].
    """
    optim = torch.optim.AdamW(
        [p for n, p in model.named_parameters() if not n.startswith("visual.")], lr=1e-3, fused=True
    )
    seen = torch.zeros(TEXT["vocab_size"], dtype=torch.bool)
    scale = model.logit_scale.detach().exp()
    for step in bar(range(steps), "text", mininterval=10):
        rng = random.Random(f"text-{seed}-{step}")
        first, second, claims = pairs.paraphrases(batch, rng)
        tokens = clip.tokenize(first + second).to(scale.device)
        seen[tokens.cpu().flatten()] = True
        a, b = F.normalize(encode_text(model, tokens), dim=-1).chunk(2)
        true, false = (torch.from_numpy(x).to(scale.device) for x in agreement(claims, claims))
        loss = contrastive_loss(scale * a @ b.T, true, false)
        optim.zero_grad(set_to_none=True)
        loss.backward()
        optim.step()
    return seen


def adopt_text(model: CLIP) -> torch.Tensor:
    """Give the model `tiny_rn`'s text tower, which already knows what can be seen; the temperature starts afresh.

    Returns the tokens that occurred in its captions, bool [vocabulary].
    """
    state = torch.load(OUT / "tiny_rn.pt", map_location="cpu", weights_only=True)
    text = {k: v for k, v in state.items() if not k.startswith("visual.") and k != "logit_scale"}
    model.load_state_dict(text, strict=False)
    return text["token_embedding.weight"].any(dim=1)


@torch.no_grad()
def place_patches(vit: torch.nn.Module) -> None:
    """Start the positional embedding as sines and cosines of each patch's row and column, not as noise.

    A patch then resembles its neighbours from the first step on: what is learned in one place serves the next.
    """
    tokens, width = vit.positional_embedding.shape
    side = math.isqrt(tokens - 1)
    rate = 100 ** -torch.linspace(0, 1, width // 4 + 1)[:-1]
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [place.flatten()[:, None] * rate for place in (column, row)]
    vit.positional_embedding[1:] = 0.5 * torch.cat([wave(a) for a in angles for wave in (torch.sin, torch.cos)], dim=1)


class Muon(torch.optim.Optimizer):
    """Momentum whose update is made orthogonal, for the weight matrices of a transformer (K. Jordan et al., 2024).

    Per view it learns about three times what AdamW learns here. ``torch.optim.Muon`` is the same rule, but it computes
    in bfloat16, which most CPUs only emulate, and older releases of torch lack it.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], lr: float, momentum: float = 0.95, decay: float = 0.05):
        super().__init__(params, dict(lr=lr, momentum=momentum, decay=decay))

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                mean = self.state[p].setdefault("momentum", torch.zeros_like(p))
                mean.lerp_(p.grad, 1 - group["momentum"])
                update = orthogonal(p.grad.lerp(mean, group["momentum"]))
                p.mul_(1 - group["lr"] * group["decay"])
                p.add_(update, alpha=-group["lr"] * max(1, p.shape[0] / p.shape[1]) ** 0.5)


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """Five Newton-Schulz steps, with Muon's published coefficients: all singular values of a matrix come near 1."""
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x


def make_optimizers(model: CLIP, lr: float) -> list[torch.optim.Optimizer]:
    """AdamW for everything, but Muon for the matrices of a ViT's blocks."""
    blocks = getattr(model.visual, "transformer", torch.nn.Module())
    matrices = [p for p in blocks.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if not any(p is m for m in matrices)]
    groups = [
        {"params": [p for p in others if p.ndim > 1], "weight_decay": 0.05},
        {"params": [p for p in others if p.ndim <= 1], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=True)
    return [adamw, Muon(matrices, lr=MUON_LR)] if matrices else [adamw]


@functools.cache
def _part_images(n: int) -> tuple[torch.Tensor, list[str], list[dict[str, str]]]:
    rng = random.Random("part-reading")
    images, bodies, parts = [], [], []
    for _ in range(n):
        body, values = rng.choice(BODIES), random_parts(rng)
        image, _ = render(body, values, rng, clutter=2, light=BRIGHT)
        images.append(np.asarray(image.resize((INPUT, INPUT), Image.Resampling.BICUBIC)))
        bodies.append(body)
        parts.append(values)
    return (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255 - MEAN) / STD, bodies, parts


@torch.no_grad()
def read_parts(model: CLIP, n: int = 600) -> dict[str, float]:
    """How well fresh bright images are read: accuracy (percent) per part and for the body, by zero-shot prompts."""
    training = model.training
    model.eval()
    device = model.logit_scale.device
    images, bodies, parts = _part_images(n)
    z = torch.cat([F.normalize(model.encode_image(b.to(device)), dim=-1) for b in images.split(200)])

    def accuracy(prompts: list[str], truth: list[int]) -> float:
        t = F.normalize(encode_text(model, clip.tokenize(prompts).to(device)), dim=-1)
        return 100 * float(((z @ t.T).argmax(1).cpu() == torch.tensor(truth)).float().mean())

    scores = {"body": accuracy([f"a photo of a {b}." for b in BODIES], [BODIES.index(b) for b in bodies])}
    for part, values in PARTS.items():
        keys = list(values)
        scores[part] = accuracy(
            [f"a photo of a car with {values[k][0]}." for k in keys], [keys.index(p[part]) for p in parts]
        )
    model.train(training)
    return scores


def save_weights(model: CLIP, seen: torch.Tensor, path: Path) -> None:
    """Writes the state dict in fp16. Tokens that no caption used have no meaning to keep: their embeddings become zero,
    and the archive is deflated, which ``torch.load`` reads like any other."""
    state = {k: v.detach().cpu().half() if v.is_floating_point() else v.cpu() for k, v in model.state_dict().items()}
    state["token_embedding.weight"] = state["token_embedding.weight"] * seen.cpu()[:, None]
    buffer = io.BytesIO()
    torch.save(state, buffer)
    part = path.with_suffix(".part")
    with zipfile.ZipFile(buffer) as source, zipfile.ZipFile(part, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(zipfile.ZipInfo(name), source.read(name), zipfile.ZIP_DEFLATED)
    os.replace(part, path)


class Pretraining:
    """A model in training: what its state file holds, and one step.

    Attributes:
        seen: tokens that occurred in captions, bool [vocabulary].
        step: number of steps done.
    """

    def __init__(self, name: str, lr: float, steps: int, device: str) -> None:
        self.steps, self.step = steps, 0
        self.model = CLIP(**TEXT, **TOWERS[name]).float().to(device)
        self.seen = torch.zeros(TEXT["vocab_size"], dtype=torch.bool)
        if name == "tiny_rn":
            self.model = self.model.to(memory_format=torch.channels_last)
        else:
            place_patches(self.model.visual)
        parameters = self.model.named_parameters()
        self.text_side = [p for n, p in parameters if not n.startswith("visual.") and n != "logit_scale"]
        self.optimizers = make_optimizers(self.model, lr)
        self.peaks = [[group["lr"] for group in optim.param_groups] for optim in self.optimizers]
        self.image_tower = torch.compile(self.model.visual)  # same weights, fused element-wise work

    def load(self, file: Path) -> None:
        saved = torch.load(file, map_location=self.model.logit_scale.device, weights_only=True)
        self.model.load_state_dict(saved["model"])
        for optim, state in zip(self.optimizers, saved["optim"], strict=True):
            optim.load_state_dict(state)
        self.seen, self.step = saved["seen"].cpu(), saved["step"]

    def save(self, file: Path) -> None:
        part = file.with_suffix(".part")
        states = [optim.state_dict() for optim in self.optimizers]
        torch.save({"model": self.model.state_dict(), "optim": states, "seen": self.seen, "step": self.step}, part)
        os.replace(part, file)

    def set_rates(self) -> None:
        """A linear warm-up, then a cosine down to a hundredth."""
        warmup = min(200, self.steps // 10 + 1)
        if self.step < warmup:
            rate = (self.step + 1) / warmup
        else:
            rate = 0.5 * (1 + math.cos(math.pi * (self.step - warmup) / (self.steps - warmup)))
        for optim, peak in zip(self.optimizers, self.peaks, strict=True):
            for group, lr in zip(optim.param_groups, peak, strict=True):
                group["lr"] = lr * max(rate, 0.01)

    def train_step(self, pairs: Pairs, batch: int, seed: int) -> float:
        """Train on one batch, which is a function of (seed, step), and return the loss."""
        model, device = self.model, self.model.logit_scale.device
        self.set_rates()
        images, captions, claims, facts = pairs.batch(batch, random.Random(f"{seed}-{self.step}"))
        true, false = (torch.from_numpy(x).to(device) for x in agreement(claims, facts))
        for parameter in self.text_side:
            parameter.requires_grad_(self.step >= TEXT_FROZEN * self.steps)
        tokens = clip.tokenize(captions).to(device)
        self.seen[tokens.cpu().flatten()] = True
        text = F.normalize(encode_text(model, tokens), dim=-1)
        image = F.normalize(self.image_tower(images.to(device)), dim=-1)
        loss = contrastive_loss(model.logit_scale.exp() * image @ text.T, true, false)
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optim in self.optimizers:
            optim.step()
        with torch.no_grad():
            model.logit_scale.clamp_(max=math.log(100))
        self.step += 1
        return loss.item()


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("name", choices=list(TOWERS))
    parser.add_argument("--out", type=Path, help="default: fairclip/backbones/weights/<name>.pt")
    parser.add_argument("--pairs", type=int, default=100_000, help="images rendered")
    parser.add_argument("--steps", type=int, help=f"default: {STEPS}")
    parser.add_argument("--text-steps", type=int, default=250, help="steps of the text tower alone, before the images")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--lr", type=float, default=1.5e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes that render")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--save-every", type=int, default=200)
    parser.add_argument(
        "--work", type=Path, default=Path("build") / "pretrain", help="rendered images and the run's state"
    )
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    steps = args.steps or STEPS[args.name]
    out = args.out or OUT / f"{args.name}.pt"
    out.parent.mkdir(parents=True, exist_ok=True)
    args.work.mkdir(parents=True, exist_ok=True)
    state_file = args.work / f"{out.stem}.state"
    torch.set_flush_denormal(True)
    torch.manual_seed(args.seed)
    run = Pretraining(args.name, args.lr, steps, args.device)
    if state_file.exists():
        run.load(state_file)
        print(f"going on at step {run.step} of {steps} from {state_file}")

    pairs = Pairs(args.pairs, args.seed, args.workers, args.work)
    if run.step == 0 and args.name == "tiny":
        run.seen = adopt_text(run.model)
    elif run.step == 0:
        run.seen = warm_up_text(run.model, pairs, args.text_steps, args.batch, args.seed)
    clock = time.time()
    while run.step < steps:
        loss = run.train_step(pairs, args.batch, args.seed)
        if run.step % args.save_every == 0 or run.step == steps:
            scores = read_parts(run.model)
            run.save(state_file)
            print(
                f"step {run.step}/{steps}  {time.time() - clock:.0f} s  loss {loss:.3f}  "
                f"scale {run.model.logit_scale.exp().item():.1f}  "
                + "  ".join(f"{k} {v:.0f}" for k, v in scores.items()),
                flush=True,
            )
    save_weights(run.model, run.seen, out)
    print(f"wrote {out} ({out.stat().st_size / 1e6:.1f} MB)")


if __name__ == "__main__":
    main()
