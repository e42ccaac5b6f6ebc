"""Widths that code computes from another: a view follows the axis of the layer before it."""

import numpy as np
from torch import Tensor

from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.trace import Record, is_inside
from featherpress.compress.pruning.tracing import Tracer


def tie_width(tracer: Tracer, out: Tensor) -> None:
    """Tie what a view gives to what the layer before it takes, column by column: one is computed from the other."""
    records = tracer.trace.records
    for ids in (each for each in tracer.of(out) if each is not None):
        own = tracer.labels.tied.find(ids)
        for key in reversed(records):
            if not is_inside(key[0], tracer.key[0]):
                continue
            before = _wider(tracer, records[key], ids, own)
            if before is not None:
                tracer.labels.tie_rows(np.concatenate([ids[None], before.reshape(-1, len(ids))]).T)
                break


def _wider(tracer: Tracer, record: Record, ids: Ids, own: Ids) -> Ids | None:
    """Return an axis that goes into an operator, is as wide or so many times, and not yet tied."""
    for axes in record.taken:
        for each in axes:
            if each is None or len(each) % len(ids):
                continue
            if not np.isin(tracer.labels.tied.find(each), own).any():
                return each
    return None
