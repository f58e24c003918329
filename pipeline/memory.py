"""How much memory workers take, before they start."""

from __future__ import annotations

import torch

from .._util.errors import UserError
from .._util.memory import free_memory
from ..model import Model

GIB = 2**30
BESIDE = GIB  # the interpreter with its libraries, and the batches of a small model
COPY, TRAINING = 4, 16  # bytes for each weight, beside the weight itself


def worker_bytes(model: Model, *, trains: bool) -> float:
    """What a worker takes, about: the weights, what a job holds beside them, and 1 GiB.

    A job that trains all weights holds a float32 copy, gradients and the two moments of AdamW, 16 bytes a weight; any
    other job a copy in float32 at most, 4 bytes a weight.
    """
    return BESIDE + model.n_parameters * (model.dtype.itemsize + (TRAINING if trains else COPY))


def check_memory(model: Model, workers: int, *, trains: bool) -> None:
    """Refuse more workers than the free memory holds.

    Raises:
        UserError: too many; it names how many fit.
    """
    places = worker_devices(model, workers)
    each = worker_bytes(model, trains=trains)
    fits = sum(int(free_memory(place) // each) for place in dict.fromkeys(places))
    if any(places.count(place) * each > free_memory(place) for place in places):
        free = sum(map(free_memory, dict.fromkeys(places)))
        instead = f"give --workers {fits}" if fits > 1 else "leave out --workers"
        raise UserError(
            f"{workers} workers take about {workers * each / GIB:.1f} GiB, {each / GIB:.1f} each, and "
            f"{free / GIB:.1f} GiB are free; {instead}, or a smaller --dtype."
        )


def worker_devices(model: Model, workers: int) -> list[torch.device]:
    """Where each worker's model is: where the given model is; on GPUs, in turn on all that the process sees."""
    device = model.device
    if device.type != "cuda":
        return [device] * workers
    first, n = device.index or 0, torch.cuda.device_count()
    return [torch.device("cuda", (first + i) % n) for i in range(workers)]
