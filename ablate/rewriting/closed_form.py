"""The closed forms behind the edits that train no weights, as functions over tensors."""

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
        """`[d_in, d_out]`, to be added to a weight of GPT-2's `Conv1D`, or transposed to one of `nn.Linear`."""
        return self.left @ self.right


def rome_update(
    key: Tensor, value: Tensor, *, output: Tensor, key_mean: Tensor | None = None, moment: Tensor | None = None
) -> Update:
    """The rank-one change by which a map writes `value` for `key`, and little else for other keys.

    ROME (Meng et al. 2022, arXiv:2202.05262, eq. 2): of all changes that keep this constraint it moves the outputs
    on keys of second moment `moment` least, in the mean square, when `key_mean` is `key`.

    Args:
        key: `[d_in]`, what the map reads in the prompt itself.
        value: `[d_out]`, what it shall write there, its bias included.
        output: `[d_out]`, what it writes there now.
        key_mean: `[d_in]`, the key averaged over contexts, which gives the direction; `key` where it is left out.
        moment: `[d_in, d_in]`, uncentred second moment of keys; the identity where it is left out.

    Returns:
        `left` of length one.

    Raises:
        UserError: a moment that cannot be inverted, or a key that the direction does not see.
    """
    direction = key if key_mean is None else key_mean
    if moment is not None:
        direction = _solve(moment, direction[:, None])[:, 0].to(key)
    direction = direction / direction.norm()
    seen = key @ direction
    if not seen.abs() > torch.finfo(key.dtype).eps * key.norm():
        raise UserError("the key is zero or orthogonal to its mean over contexts; give other contexts.")
    return Update(direction[:, None], ((value - output) / seen)[None])


def memit_update(keys: Tensor, residuals: Tensor, moment: Tensor, *, weight: float, layers: int = 1) -> Update:
    """The least-squares change that moves the outputs for many keys by their residuals, and old keys' outputs little.

    MEMIT (Meng et al. 2023, arXiv:2210.07229, eq. 14 and 20), solved in double precision.

    Args:
        keys: `[n, d_in]`; where a residual has several keys, they follow one another.
        residuals: `[m, d_out]`, how far the values are from where they shall be; `n` is a multiple of `m`.
        moment: `[d_in, d_in]`, uncentred second moment of the keys of other text.
        weight: how many such keys the moment counts for.
        layers: how many layers are still to be written, this one included: each takes an equal part of what is left.

    Raises:
        UserError: keys and residuals that do not match, or a system that cannot be solved.
    """
    if not len(residuals) or len(keys) % len(residuals):
        raise UserError(f"{len(keys)} keys do not share out over {len(residuals)} residuals; give as many for each.")
    k = keys.double().t()
    left = _solve(weight * moment.double() + k @ k.t(), k)
    right = residuals.double().repeat_interleave(len(keys) // len(residuals), 0) / layers
    return Update(left, right)


def erasure(concept: Tensor, moment: Tensor, *, rank: int | None = None) -> Update:
    """The linear map that takes a subspace out of a state and moves states least: `x + x @ left @ right`.

    The least-squares eraser of LEACE (Belrose et al. 2023, arXiv:2306.03819, theorem 4.2) without its constant.

    Args:
        concept: `[d, n]`, directions to be mapped to zero, such as a state's cross-covariance with labels.
        moment: `[d, d]`, second moment of the states that shall move little; with a covariance in its place, and the
            mean put back, it is LEACE itself.
        rank: how many directions to take at most, the strongest; all that are there by default.

    Raises:
        UserError: a concept without a direction, or a moment that cannot be inverted.
    """
    basis, strengths, _ = torch.linalg.svd(concept.double(), full_matrices=False)
    n = int((strengths > 1e-7 * strengths[:1]).sum())
    basis = basis[:, : n if rank is None else min(rank, n)]
    if not basis.shape[1]:
        raise UserError("the concept has no direction to take out; its states do not differ between its labels.")
    whitened = _solve(moment.double(), basis)
    return Update(whitened @ torch.linalg.inv(basis.t() @ whitened), -basis.t())


def _solve(moment: Tensor, right: Tensor) -> Tensor:
    solved, failed = torch.linalg.solve_ex(moment.to(right.dtype), right)
    if failed or not solved.isfinite().all():
        raise UserError(
            f"the second moment of shape {tuple(moment.shape)} cannot be inverted; give more text, or a ridge above 0."
        )
    return solved
