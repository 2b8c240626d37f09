"""How long the methods without training take for all images at once, and how their memory grows with the images."""

import time
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from fairclip.bench.measuring import peak_memory, reset_peak, seconds
from fairclip.bench.settings import Settings
from fairclip.bench.trainers import TrainerFactory
from fairclip.method import stata, transclip, zlap
from fairclip.method.neighbours import nearest_neighbours

WIDTH, CLASSES = 512, 200
SPREAD = 0.1  # of images around their class, in each dimension: some are taken for others


def measure_solvers(factory: TrainerFactory, settings: Settings) -> dict[str, Any]:
    device = torch.device(settings.device)
    found: dict[str, dict[str, Any]] = {}
    for images in settings.solver_images:
        features, texts, log_prior = made_up(images, device)
        nearest_neighbours(features[:64])  # warms up
        for name, work in {
            "ZLaP": lambda q, t, y: zlap.propagate(zlap.similarity_graph(q, t), len(t)),
            "StatA": lambda q, t, y: stata.fit(q, t, y),
            "TransCLIP": lambda q, t, y: transclip.fit(q, y),
        }.items():
            reset_peak(device)
            before, started = peak_memory(device), time.process_time()
            spent = seconds(device, work, features, texts, log_prior)
            figures = {"seconds": spent, "processor_seconds": time.process_time() - started}
            found.setdefault(name, {})[str(images)] = figures | {"bytes": peak_memory(device) - before}
    return {"solvers": found, "solver_classes": CLASSES}


def made_up(images: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Features [N, d] around K directions, these as texts [K, d], and log-probabilities [N, K]; float64, as runs."""
    generator = torch.Generator().manual_seed(0)
    texts = F.normalize(torch.randn(CLASSES, WIDTH, generator=generator, dtype=torch.float64), dim=1)
    noise = SPREAD * torch.randn(images, WIDTH, generator=generator, dtype=torch.float64)
    features = F.normalize(texts[torch.arange(images) % CLASSES] + noise, dim=1)
    log_prior = (100 * features @ texts.t()).log_softmax(dim=1)
    return features.to(device), texts.to(device), log_prior.to(device)
