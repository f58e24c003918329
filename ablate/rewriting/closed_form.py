"""The closed forms of the edits that train no weights, as functions over tensors."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..._util.errors import UserError


@dataclass(frozen=True)
class Update:
    """A low-rank change of a linear map: its output moves by `x @ left @ right`.

    `left`: `[d_in, rank]`, `right`: `[rank, d_out]`.
    """

    left: Tensor
    right: Tensor

    @property
    def change(self) -> Tensor:
        """`[d_in, d_out]`: add it to a weight of GPT-2's `Conv1D`, or its transpose to a weight of `nn.Linear`."""
        return self.left @ self.right


def rome_update(
    key: Tensor, value: Tensor, *, output: Tensor, key_mean: Tensor | None = None, moment: Tensor | None = None
) -> Update:
    """The rank-one change after which a map writes `value` for `key`, and hardly changes for other keys.

    ROME (Meng et al. 2022, arXiv:2202.05262, eq. 2). If `key_mean` is `key`, then of all changes with this constraint
    it moves the outputs on keys of second moment `moment` least, in the mean square.

    Args:
        key: `[d_in]`, the map's input in the prompt itself.
        value: `[d_out]`, the map's new output there, its bias included.
        output: `[d_out]`, its present output there.
        key_mean: `[d_in]`, the key averaged over contexts, which gives the direction; by default `key`.
        moment: `[d_in, d_in]`, uncentred second moment of keys; by default the identity.

    Returns:
        `left` of length one.

    Raises:
        UserError: a moment that cannot be inverted, or a key that is orthogonal to the direction.
    """
    direction = key if key_mean is None else key_mean
    if moment is not None:
        direction = _solve(moment, direction[:, None])[:, 0].to(key)
    direction = direction / direction.norm()
    share = key @ direction
    if not share.abs() > torch.finfo(key.dtype).eps * key.norm():
        raise UserError("the key is zero or orthogonal to its mean over contexts; give other contexts.")
    return Update(direction[:, None], ((value - output) / share)[None])


def memit_update(keys: Tensor, residuals: Tensor, moment: Tensor, *, weight: float, layers: int = 1) -> Update:
    """The least-squares change that moves many keys' outputs by their residuals, and old keys' outputs little.

    MEMIT (Meng et al. 2023, arXiv:2210.07229, eq. 14 and 20), solved in double precision.

    Args:
        keys: `[n, d_in]`; if a residual has several keys, they are adjacent.
        residuals: `[m, d_out]`, how far the outputs are from the wanted values; `n` is a multiple of `m`.
        moment: `[d_in, d_in]`, uncentred second moment of the keys of other text.
        weight: how many such keys the moment counts for.
        layers: how many layers remain to be written, this one included. Each takes an equal part of the residuals.

    Raises:
        UserError: keys and residuals whose numbers do not match, or a system that cannot be solved.
    """
    if not len(residuals) or len(keys) % len(residuals):
        raise UserError(f"{len(keys)} keys cannot be shared by {len(residuals)} residuals; give as many for each.")
    k = keys.double().t()
    left = _solve(weight * moment.double() + k @ k.t(), k)
    right = residuals.double().repeat_interleave(len(keys) // len(residuals), 0) / layers
    return Update(left, right)


def erasure(concept: Tensor, moment: Tensor, *, rank: int | None = None) -> Update:
    """The linear map that removes a subspace from states and moves them least: `x + x @ left @ right`.

    The least-squares eraser of LEACE (Belrose et al. 2023, arXiv:2306.03819, theorem 4.2) without its constant.

    Args:
        concept: `[d, n]`, directions to map to zero, such as the states' cross-covariance with labels.
        moment: `[d, d]`, second moment of the states that must move little. With their covariance in its place, and
            the mean added again, this is LEACE itself.
        rank: how many directions to remove at most, the strongest; all by default.

    Raises:
        UserError: a concept without a direction, or a moment that cannot be inverted.
    """
    basis, strengths, _ = torch.linalg.svd(concept.double(), full_matrices=False)
    n = int((strengths > 1e-7 * strengths[:1]).sum())
    basis = basis[:, : n if rank is None else min(rank, n)]
    if not basis.shape[1]:
        raise UserError("the concept has no direction to remove: its states do not differ between labels.")
    whitened = _solve(moment.double(), basis)
    return Update(whitened @ torch.linalg.inv(basis.t() @ whitened), -basis.t())


def _solve(moment: Tensor, right: Tensor) -> Tensor:
    solved, failed = torch.linalg.solve_ex(moment.to(right.dtype), right)
    if failed or not solved.isfinite().all():
        raise UserError(
            f"the second moment of shape {tuple(moment.shape)} cannot be inverted; give more text, or a ridge above 0."
        )
    return solved
