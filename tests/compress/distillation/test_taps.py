"""Taps and adapters: checked before a run, silent while their gate is shut."""

import pytest
import torch
from torch import Tensor, nn

from featherpress.compress.distillation.adapters import (
    AdapterKind,
    Shape,
    as_maps,
    build_adapters,
    describe,
    match_sizes,
)
from featherpress.compress.distillation.taps import Tap, tap_shapes
from featherpress.compress.experiments.recipe_distiller import ramp, term_factor
from featherpress.compress.recipes import DistillationRecipe
from featherpress.errors import UsageError
from featherpress.models import create_model

IMAGES = torch.zeros(1, 3, 64, 64)


def test_shapes_of_levels() -> None:
    """The shapes at a tap are known before a run, and the model is left as it was found."""
    model = create_model("featherface_v1_ssh_plain").train()
    model.backbone.eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    assert tap_shapes(model, "shuffle", IMAGES) == [(1, 56, 8, 8), (1, 56, 4, 4), (1, 56, 2, 2)]
    assert tap_shapes(model, "backbone.stage2", IMAGES) == [(1, 128, 4, 4)]
    assert (model.training, model.backbone.training, model.bifpn.training) == (True, False, True)
    assert not model.shuffle._forward_hooks
    assert not model._forward_pre_hooks
    assert all(torch.equal(value, model.state_dict()[key]) for key, value in before.items())


def test_patterns_name_several_modules() -> None:
    """A star stands for anything but a dot, so that it names siblings and not their children."""
    model = create_model("featherface_v2")
    whole = tap_shapes(model, "shuffle", IMAGES)
    assert tap_shapes(model, "shuffle.*", IMAGES) == whole
    assert tap_shapes(model, "shuf?le", IMAGES) == whole
    assert len(tap_shapes(model, "backbone.stage*", IMAGES)) == 3


def test_unknown_path_lists_the_children() -> None:
    """A path that is not there is answered with those that are."""
    with pytest.raises(UsageError, match=r"no module 'neck'.*bifpn"):
        Tap(create_model("featherface_v2"), "neck")


def test_tap_that_caught_nothing_says_so() -> None:
    """A tap whose module did not run raises, so that no loss is silently zero."""
    tap = Tap(nn.Sequential(nn.Linear(2, 2)), "0")
    with tap.open(), pytest.raises(UsageError, match="caught nothing"):
        tap.take()


def test_tap_is_taken_once() -> None:
    """What a forward left is read once: the next read needs a new forward."""
    model = nn.Sequential(nn.Linear(2, 2))
    tap = Tap(model, "0")
    with tap.open():
        model(torch.zeros(1, 2))
        assert tap.take()[0].shape == (1, 2)
        with pytest.raises(UsageError, match="caught nothing"):
            tap.take()


def test_tap_copies_what_is_changed_in_place_and_nothing_else() -> None:
    """However often it is looked for; and a tap that is closed keeps nothing."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tap = Tap(model, "0")
    for _ in range(2):
        tap.gate.watching = True
        with tap.open():
            model(torch.zeros(1, 2))
        tap.keep_from_change()
    assert not tap._kept
    assert not tap.missing
    tap.close()
    assert tap.missing == ["0"]


def test_module_that_runs_twice_gives_two_levels() -> None:
    """Each run of a module is a level; what was not taken is forgotten, and nothing is kept outside."""

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.one(self.one(x))  # type: ignore[no-any-return]

    model = Twice()
    tap = Tap(model, "one")
    with tap.open():
        model(torch.zeros(1, 2))
    model(torch.zeros(1, 2))
    with tap.open():
        last = model(torch.ones(1, 2))
    first, second = tap.take()
    assert torch.equal(second, last)
    assert torch.equal(first, model.one(torch.ones(1, 2)))
    tap.close()
    assert not model.one._forward_hooks


def test_what_cannot_be_tapped() -> None:
    """A module that does not run by itself, that returns no tensors, or strange ones, is named."""
    model = create_model("featherface_v2")
    with pytest.raises(UsageError, match="did not run by itself"):
        tap_shapes(nn.Sequential(nn.Conv2d(3, 1, 1), nn.Sequential()).append(Idle()), "2.idle", IMAGES)
    with pytest.raises(UsageError, match="returns str, not tensors; `select` chooses"):
        tap_shapes(nn.Sequential(Named()), "0", IMAGES)
    with pytest.raises(UsageError, match=r"expected maps \(N, C, H, W\)"):
        tap_shapes(nn.Sequential(nn.Flatten(0), nn.Identity()), "1", IMAGES)
    assert not any(module._forward_hooks for module in model.modules())


class Idle(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.idle = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor | str]:
        return {"x": x, "name": "x"}


MAPS = [(1, 32, 8, 8), (1, 32, 4, 4), (1, 32, 2, 2)]
WIDE = [(1, 56, 8, 8), (1, 56, 4, 4), (1, 56, 2, 2)]


def test_adapters_between_v2_and_v1() -> None:
    """From V2's 32 channels to V1's 56 on three levels there are 5,544 adapter weights."""
    adapters = build_adapters(MAPS, WIDE, name="feature", kind="linear")
    assert sum(weight.numel() for weight in adapters.parameters()) == 5_544
    levels = adapters([torch.zeros(shape) for shape in MAPS])
    assert [tuple(level.shape) for level in levels] == WIDE


def test_adapters_follow_their_levels() -> None:
    """A student that moved to another device after the adapters were built takes them along."""
    adapters = build_adapters(MAPS, WIDE, name="feature", kind="linear")
    levels = adapters([torch.zeros(shape, device="meta") for shape in MAPS])
    assert {each.device.type for each in (*levels, *adapters.parameters())} == {"meta"}


def test_adapters_of_other_shapes() -> None:
    """Vectors and tokens get a linear layer, MGD its generation block, losses without adapter nothing."""
    (linear,) = build_adapters([(1, 7, 5)], [(1, 7, 9)], name="x", kind="linear")
    assert linear(torch.zeros(2, 7, 5)).shape == (2, 7, 9)
    (linear,) = build_adapters([(1, 5)], [(1, 9)], name="x", kind="linear")
    assert linear(torch.zeros(2, 5)).shape == (2, 9)
    generation = build_adapters([(1, 4, 8, 8)], [(1, 6, 8, 8)], name="x", kind="generation")
    assert sum(weight.numel() for weight in generation.parameters()) == 4 * 6 + 6 + 2 * (9 * 36 + 6)
    assert generation([torch.zeros(2, 4, 8, 8)], [torch.ones(2, 1, 8, 8)])[0].shape == (2, 6, 8, 8)
    assert not list(build_adapters(MAPS, WIDE, name="x", kind="any").parameters())


@pytest.mark.parametrize(
    ("student", "teacher", "kind", "words"),
    [
        (MAPS, WIDE[:1], "linear", "feature do not match: the student's has 3 levels, the teacher's 1"),
        (MAPS, WIDE, "none", "level 1 of feature: without an adapter the student's 32 channels"),
        ([(1, 5)], WIDE[:1], "linear", r"the student gives \(1, 5\) and the teacher \(1, 56, 8, 8\)"),
        ([(1, 7, 5)], [(1, 8, 5)], "linear", "7 tokens .* 8"),
    ],
)
def test_levels_that_cannot_be_compared(
    student: list[Shape], teacher: list[Shape], kind: AdapterKind, words: str
) -> None:
    """Each mismatch is one sentence that names the term and the level."""
    with pytest.raises(UsageError, match=words):
        build_adapters(student, teacher, name="feature", kind=kind)


def test_sizes_are_brought_together() -> None:
    """A larger map of the teacher's is averaged to the student's size, a smaller one interpolated; both can be told."""
    big = torch.arange(16.0).view(1, 1, 4, 4)
    small = torch.zeros(1, 3, 2, 2)
    assert match_sizes(big, small).flatten().tolist() == [2.5, 4.5, 10.5, 12.5]
    assert match_sizes(small, big).shape == (1, 3, 4, 4)
    corner = torch.zeros(1, 1, 6, 6)
    corner[..., 0, 0] = 9
    assert match_sizes(corner, small).flatten().tolist() == [1, 0, 0, 0]
    wide = torch.zeros(1, 1, 2, 6)
    wide[..., 0, 0] = 3
    assert match_sizes(wide, small).flatten().tolist() == [1, 0, 0, 0]
    assert match_sizes(big, big) is big
    assert describe((1, 3, 2, 2), (1, 5, 4, 4)) == "3 to 5 channels, the teacher's 4x4 averaged to 2x2"
    assert describe((1, 3, 4, 4), (1, 5, 2, 2)) == "3 to 5 channels, the teacher's 2x2 interpolated to 4x4"
    assert describe((1, 3), (1, 5)) == "3 to 5 channels"


def test_vectors_and_tokens_as_maps() -> None:
    """Vectors are maps of one place, tokens maps of one column, channels second."""
    tokens = torch.arange(12.0).view(1, 3, 4)
    assert as_maps(torch.zeros(2, 5)).shape == (2, 5, 1, 1)
    assert torch.equal(as_maps(tokens)[0, :, :, 0], tokens[0].T)


def test_ramp() -> None:
    """Distillation grows over the ramp, stays at 1, and is off for the last tenth."""
    factors = [ramp(step, total=20, ramp_steps=4, stop=0.1) for step in range(20)]
    assert factors == [0.25, 0.5, 0.75, *[1.0] * 15, 0.0, 0.0]


def test_terms_with_times_of_their_own() -> None:
    """A term may begin later, grow over another ramp and end elsewhere than the recipe says."""
    recipe = DistillationRecipe(
        ramp_steps=1,
        stop=0.5,
        losses={"late": {"loss": "margin", "start": 0.2, "ramp_steps": 2, "stop": 0.0}, "same": {"loss": "margin"}},
    )
    late, same = (
        [term_factor(recipe.losses[name], recipe, step=step, total=10) for step in range(10)]
        for name in ("late", "same")
    )
    assert late == [0.0, 0.0, 0.5, *[1.0] * 7]
    assert same == [1.0] * 5 + [0.0] * 5
