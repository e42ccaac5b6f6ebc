"""Proof of a cut: a second trace with the original's labels."""

import numpy as np

from featherpress.compress.pruning.followed import Followed
from featherpress.compress.pruning.labels import Comparison, Ids
from featherpress.compress.pruning.running import run_traced
from featherpress.compress.pruning.surgery import Cut
from featherpress.compress.pruning.trace import Trace
from featherpress.compress.pruning.units import Space


def trial(space: Space, seed: int = 0) -> list[Ids]:
    """Choose about a third of each family's units to cut, another share of each, so that no two widths agree."""
    chance = np.random.default_rng(seed)
    kept = []
    for family in space.families:
        many = len(family)
        if family.least == many:
            kept.append(family.units)
            continue
        left = family.allowed(min(round(many * chance.uniform(0.5, 0.85)), many - 1))
        kept.append(np.sort(chance.choice(family.units, left, replace=False)))
    return kept


def compare(followed: Followed, cut: Cut) -> Trace:
    """Trace a cut copy, and compare its labels with those of the whole."""
    subject, first = followed.subject, followed.trace
    second = Trace(labels=Comparison(first.labels, followed.space.locked), params=cut.axes())
    changes = cut.attributes(subject.model)
    for training in (False, True) if first.trained else (False,):
        try:
            run_traced(
                subject,
                second,
                followed.decisions,
                twin=cut.twin,
                attributes=changes,
                kept=cut.kept,
                whole=first,
                training=training,
            )
        except Exception:
            if second.failure is None:  # not of the model's own code
                raise
    if second.failure and not second.faults:
        second.faults = {second.failure[0]: [second.failure[1]]}
    else:
        second.failure = None
    return second
