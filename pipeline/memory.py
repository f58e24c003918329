"""How much memory workers take, before they start."""

from __future__ import annotations

import torch

from .._util.errors import UserError
from .._util.memory import free_memory
from ..model import Model

BESIDE = 2**30  # the interpreter with its libraries, and the batches of a small model
GIB = 2**30


def worker_bytes(model: Model, copies: int) -> float:
    """What a worker takes, about: `copies` times the weights, and 1 GiB.

    `copies`: how many numbers of the size of the weights a job holds at once: 1 for asking, locating and training
    slices, 5 for relearning (weights, a copy that restores them, gradients, the two moments of AdamW).
    """
    return BESIDE + copies * sum(p.numel() * p.element_size() for p in model.parameters.values())


def check_memory(model: Model, workers: int, copies: int) -> None:
    """Refuse more workers than the free memory holds.

    Raises:
        UserError: too many; it names how many fit.
    """
    places = worker_devices(model, workers)
    each = worker_bytes(model, copies)
    fits = sum(int(free_memory(place) // each) for place in dict.fromkeys(places))
    if any(places.count(place) * each > free_memory(place) for place in places):
        free = sum(map(free_memory, dict.fromkeys(places)))
        instead = f"give --workers {fits}" if fits > 1 else "leave out --workers"
        raise UserError(
            f"{workers} workers take about {workers * each / GIB:.1f} GiB, {each / GIB:.1f} each "
            f"(1, and {copies} times the weights), and {free / GIB:.1f} GiB are free; {instead}, or a smaller --dtype."
        )


def worker_devices(model: Model, workers: int) -> list[torch.device]:
    """Where each worker's model is: where the given model is; on GPUs, in turn on all that the process sees."""
    device = model.device
    if device.type != "cuda":
        return [device] * workers
    first, n = device.index or 0, torch.cuda.device_count()
    return [torch.device("cuda", (first + i) % n) for i in range(workers)]
