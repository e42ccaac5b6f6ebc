"""What a request comes to, step by step, for tests that look at the steps."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
from torch import Tensor, nn

from featherpress.budgets import count
from featherpress.compress.pruning.choice import Chooser, weigh_units
from featherpress.compress.pruning.followed import Followed
from featherpress.compress.pruning.following import follow
from featherpress.compress.pruning.labels import Ids
from featherpress.compress.pruning.limits import make_limits
from featherpress.compress.pruning.trace import Subject
from featherpress.compress.pruning.units import Family


class Steps(NamedTuple):
    """A model that was followed, what chooses, and how many units of each family stay."""

    followed: Followed
    chooser: Chooser
    kept: Ids

    def give_back(self) -> Iterator[tuple[Family, nn.Module]]:
        """For each family that was cut, build what would stay with one step more of it."""
        for place, family in enumerate(self.followed.space.families):
            if self.kept[place] < len(family):
                more = self.kept.copy()
                more[place] += family.step
                yield family, self.followed.build(self.followed.cut(self.chooser.units(more)))


@pytest.fixture(scope="session")
def take_steps() -> Callable[..., Steps | None]:
    """Do what `prune` does up to the choice."""

    def take(
        model: nn.Module, example: Tensor, *, floor: float = 0.1, strict: bool = True, **limits: Any
    ) -> Steps | None:
        amounts = {"params": None, "macs": None, "budget": None, **limits}
        found = make_limits(count(model, example), **amounts)
        followed = follow(Subject(model=model, args=(example,), kwargs={}), share=floor)
        chooser = Chooser(followed.space, found, weigh_units(followed.space, model, "l2"))
        kept = chooser.choose()
        assert kept is not None or not strict
        return None if kept is None else Steps(followed, chooser, kept)

    return take
