"""The positions that a loss is over, those of a mask or all of them."""

from torch import Tensor


def as_rows(values: Tensor, mask: Tensor | None) -> Tensor:
    """Lay out (N, C, ...) as one row a position, (M, C), those of the mask alone."""
    last = values.movedim(1, -1)
    return last.reshape(-1, last.shape[-1]) if mask is None else last[mask]


def mean_over_positions(values: Tensor, mask: Tensor | None) -> Tensor:
    """Average values (N, ...) over the positions of a mask, all of them without one; 0 where it holds none."""
    if mask is None:
        return values.mean() if values.numel() else values.sum()
    return (values * mask).sum() / mask.sum().clamp(min=1)
