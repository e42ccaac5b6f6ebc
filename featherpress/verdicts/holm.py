"""Several comparisons with one control: the chance that any of them claims too much."""

from collections.abc import Mapping, Sequence

import numpy as np

from featherpress.verdicts.claims import Verdict


def adjust_holm(p: Sequence[float]) -> list[float]:
    """Return p values adjusted for how many there are.

    Source: Holm 1979.
    """
    order = np.argsort(p, kind="stable")
    raised = [min(1.0, p[index] * (len(p) - rank)) for rank, index in enumerate(order)]
    adjusted = np.empty(len(p))
    adjusted[order] = np.maximum.accumulate(raised) if len(p) else []
    return [float(value) for value in adjusted]


def adjusted_verdicts(
    verdicts: Mapping[str, tuple[Verdict, float]], *, confidence: float = 0.95
) -> dict[str, tuple[Verdict, float]]:
    """Return each verdict with its adjusted p value; a claim that does not survive becomes "not shown".

    Undecided comparisons claim nothing, and count among the comparisons all the same.
    """
    adjusted = adjust_holm([p for _, p in verdicts.values()])
    result: dict[str, tuple[Verdict, float]] = {}
    for (name, (verdict, _)), p in zip(verdicts.items(), adjusted, strict=True):
        lost = verdict in {"better", "worse"} and p >= 1 - confidence
        result[name] = ("not shown" if lost else verdict, p)
    return result
