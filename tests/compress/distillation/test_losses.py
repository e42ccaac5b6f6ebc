"""The distillation losses against values worked out by hand, and what they have in common."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from featherpress.compress.distillation.adapters import MaskedGeneration
from featherpress.compress.distillation.losses.dist import dist
from featherpress.compress.distillation.losses.features import (
    attention_transfer,
    cwd,
    fgd,
    fitnets,
    foreground_weights,
    mgd,
    pkd,
    random_mask,
    weighted_fgd,
)
from featherpress.compress.distillation.losses.outputs import binary, dkd, kl, margin, margin_divergence, smooth_l1
from featherpress.compress.distillation.losses.registry import find_loss, list_losses
from featherpress.compress.distillation.losses.rkd import rkd
from featherpress.errors import UsageError

Loss = Callable[[Tensor, Tensor], Tensor]
ONE = torch.tensor(1.0)
LABELS = torch.tensor([0, 2])
WEIGHTS = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]]).repeat(2, 1, 1)


def everywhere(student: Tensor) -> Tensor:
    return torch.ones(student.shape[:2], dtype=torch.bool)


# Each loss with the shape that it takes.
LOSSES: dict[str, tuple[tuple[int, ...], Loss]] = {
    "pkd": ((2, 4, 2, 3), pkd),
    "cwd": ((2, 4, 2, 3), cwd),
    "fitnets": ((2, 4, 2, 3), fitnets),
    "attention": ((2, 4, 2, 3), attention_transfer),
    "mgd": ((2, 4, 2, 3), mgd),
    "fgd": ((2, 4, 2, 3), lambda s, t: weighted_fgd(s, t, foreground=WEIGHTS, background=1 - WEIGHTS)),
    "margin": ((2, 9, 2), lambda s, t: margin_divergence(s, t, everywhere(s), count=ONE)),
    "regression": ((2, 9, 4), lambda s, t: smooth_l1(s, t, everywhere(s), count=ONE)),
    "binary": ((2, 3, 9), binary),
    "kl": ((2, 5), kl),
    "dkd": ((2, 5), lambda s, t: dkd(s, t, labels=LABELS)),
    "dist": ((3, 5), dist),
    "rkd": ((4, 3), rkd),
}


def draw(name: str, seed: int) -> Tensor:
    return torch.randn(LOSSES[name][0], generator=torch.Generator().manual_seed(seed))


def test_every_registered_loss_is_tested_here() -> None:
    """The register and this file know the same losses; an unknown name is answered with the nearest."""
    assert sorted(LOSSES) == list_losses()
    with pytest.raises(UsageError, match="named 'pdk'; did you mean pkd"):
        find_loss("pdk")
    with pytest.raises(UsageError, match="there are attention, binary, cwd"):
        find_loss("zzz")


def test_options_are_those_of_the_papers() -> None:
    """Weights and temperatures at which the losses stand in their sources, or else in `docs/recipes.md`."""
    options = {name: {key: each.default for key, each in find_loss(name).options.items()} for name in list_losses()}
    assert {name: found for name, found in options.items() if found} == {
        "binary": {"temperature": 1.0, "teacher_score": 0.05},
        "cwd": {"temperature": 4.0},
        "dist": {"temperature": 4.0, "inter": 1.0, "intra": 1.0},
        "dkd": {"temperature": 4.0, "target": 1.0, "rest": 8.0},
        "fgd": {"temperature": 0.5, "background": 0.5, "attention": 1.0},
        "kl": {"temperature": 4.0},
        "margin": {"temperature": 1.0, "teacher_score": 0.05},
        "mgd": {"masked": 0.65},
        "rkd": {"distance": 1.0, "angle": 2.0},
    }


@pytest.mark.parametrize("name", LOSSES)
def test_a_student_like_its_teacher_has_nothing_to_learn(name: str) -> None:
    """Each loss is zero and flat when student equals teacher, and positive when not."""
    loss, teacher = LOSSES[name][1], draw(name, 1)
    student = teacher.clone().requires_grad_()
    value = loss(student, teacher)
    value.backward()
    assert value.item() == pytest.approx(0, abs=1e-5)
    assert student.grad is not None
    assert student.grad.abs().max() < 1e-5
    assert loss(draw(name, 0), teacher).item() > 1e-3


@pytest.mark.parametrize("name", LOSSES)
def test_the_gradient_reaches_the_student_alone(name: str) -> None:
    """A step down the gradient lowers the loss; the teacher is left without one, even where it asks for it."""
    loss, student, teacher = LOSSES[name][1], draw(name, 0).requires_grad_(), draw(name, 1).requires_grad_()
    value = loss(student, teacher)
    value.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert student.grad.isfinite().all()
    with torch.no_grad():
        stepped = student - 1e-2 * student.grad / student.grad.norm()
    assert loss(stepped, teacher).item() < value.item()


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_counted_in_single(name: str) -> None:
    """Features and logits in bfloat16, as autocast leaves them, give a float32 loss of their rounded values."""
    loss, student, teacher = LOSSES[name][1], draw(name, 0).bfloat16(), draw(name, 1).bfloat16()
    value = loss(student, teacher)
    assert value.dtype == torch.float32
    torch.testing.assert_close(value, loss(student.float(), teacher.float()))


@pytest.mark.parametrize(
    ("name", "indifferent"),
    [(name, name in {"pkd", "attention", "rkd"}) for name in LOSSES],
)
def test_a_scaled_teacher(name: str, *, indifferent: bool) -> None:
    """Scaling the teacher changes nothing for the losses that look at patterns, and something for the rest."""
    loss, student, teacher = LOSSES[name][1], draw(name, 0), draw(name, 1)
    for scale in (3.0, 1e-4):
        same = loss(student, scale * teacher).item() == pytest.approx(loss(student, teacher).item(), rel=1e-4)
        assert same == indifferent


def test_binary_by_hand() -> None:
    """Each class apart, against 3/4 at even odds a quarter of KL = ln 2 - H(1/4); over the places of the teacher."""
    student, teacher = torch.zeros(1, 2, 3), torch.zeros(1, 2, 3)
    student[..., 1:] = teacher[..., 1:] = -9.0
    teacher[0, :, 0] = torch.tensor([math.log(3.0), -math.log(3.0)])
    divergence = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert binary(student, teacher).item() == pytest.approx(2 * divergence / 4)
    both = binary(student.repeat(1, 1, 2), teacher.repeat(1, 1, 2))  # twice the places, twice those of the teacher
    assert both.item() == pytest.approx(2 * divergence / 4)
    assert binary(student, teacher, teacher_score=0.0).item() == pytest.approx(2 * divergence / 4 / 3)
    raised = binary(student + 1, teacher)  # to a softmax the same, here it is not
    assert raised.item() > binary(student, teacher).item()
    assert binary(student, 2 * teacher, temperature=2).item() > 4 * divergence / 4
    nowhere = torch.zeros(1, 3, dtype=torch.bool)
    assert binary(student, teacher, mask=nowhere).item() == 0


def test_cwd_by_hand() -> None:
    """At T = 1, weights 3:1 against even odds: KL = ln 2 - H(1/4); what is added to a channel makes no difference."""
    student, teacher = torch.zeros(1, 1, 1, 2), torch.tensor([[[[math.log(3.0), 0.0]]]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert cwd(student, teacher, temperature=1).item() == pytest.approx(expected)
    assert cwd(student + 7, teacher - 3, temperature=1).item() == pytest.approx(expected, abs=1e-6)
    assert cwd(student, 2 * teacher, temperature=2).item() == pytest.approx(4 * expected)


def test_fitnets_and_mgd_by_hand() -> None:
    """Differences 1 and 3 have a mean square of 5; to a student of zeros twice the teacher costs four times as much."""
    student, teacher = torch.zeros(1, 1, 1, 2), torch.tensor([[[[1.0, 3.0]]]])
    for loss in (fitnets, mgd):
        assert loss(student, teacher).item() == pytest.approx(5)
        assert loss(student, 2 * teacher).item() == pytest.approx(20)


def test_attention_transfer_by_hand() -> None:
    """Student strong at one place, teacher at the other: |(1, 0) - (0, 1)|^2 = 2, whatever the channels and signs."""
    student = torch.tensor([[[[2.0, 0.0]]]])
    teacher = torch.tensor([[[[0.0, 1.0]], [[0.0, -5.0]], [[0.0, 0.0]]]])
    assert attention_transfer(student, teacher).item() == pytest.approx(2)
    assert attention_transfer(student, teacher.flip(-1)).item() == pytest.approx(0)


def test_random_mask_is_the_seeds() -> None:
    """A mask hides about its share of places, the same for all channels, and the same under the same seed."""
    features = torch.zeros(4, 3, 50, 50)
    one, two = (random_mask(features, masked=0.65, generator=torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one, two)
    assert one.shape == (4, 1, 50, 50)
    assert one.mean().item() == pytest.approx(0.35, abs=0.02)
    assert random_mask(features, masked=0, generator=torch.Generator()).min() == 1


def test_masked_places_are_not_seen() -> None:
    """What the student says at masked places does not reach the generated map, and all parameters learn."""
    block = MaskedGeneration(2, 3)
    mask = torch.tensor([[1.0, 0.0, 1.0, 1.0]]).view(1, 1, 2, 2)
    features = torch.randn(1, 2, 2, 2)
    other = features.clone()
    other[..., 0, 1] += 5
    assert torch.equal(block(features, mask), block(other, mask))
    mgd(block(features, mask), torch.randn(1, 3, 2, 2)).backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in block.parameters())


def test_foreground_weights_by_hand() -> None:
    """A box of four cells weighs a quarter each, a smaller one inside it wins, the rest share 1; padding is no box."""
    boxes = torch.tensor([[[0.0, 0, 16, 16], [8.0, 8, 9, 9], [0, 0, 32, 32]]])
    present = torch.tensor([[True, True, False]])
    foreground, background = foreground_weights(boxes, present, image=(32, 32), size=(4, 4))
    expected = torch.zeros(4, 4)
    expected[:2, :2] = 0.25
    expected[1, 1] = 1.0
    torch.testing.assert_close(foreground[0], expected)
    torch.testing.assert_close(background[0], (expected == 0) / 12)
    # Beyond the border there is no cell; the nearest one stands for it.
    foreground, _ = foreground_weights(
        torch.tensor([[[40, 40, 50, 60.0]]]), present[:, :1], image=(32, 32), size=(4, 4)
    )
    assert foreground[0].nonzero().tolist() == [[3, 3]]
    foreground, background = foreground_weights(boxes, present & False, image=(32, 32), size=(4, 4))
    assert (foreground.sum().item(), background.sum().item()) == (0, pytest.approx(1))
    # An image of 32 rows and 64 columns, a map of 2 and 8: cells of 16 by 8 pixels.
    foreground, _ = foreground_weights(torch.tensor([[[48.0, 0, 64, 16]]]), present[:, :1], image=(32, 64), size=(2, 8))
    assert foreground[0].nonzero().tolist() == [[0, 6], [0, 7]]
    below = torch.tensor([[[48.0, 16, 64, 32]]])
    foreground, _ = foreground_weights(below, present[:, :1], image=(32, 64), size=(2, 8))
    assert foreground[0].nonzero().tolist() == [[1, 6], [1, 7]]


def test_fgd_by_hand() -> None:
    """Under even attention a difference of 2 costs 4 where the foreground weighs 1; the background counts half."""
    student, teacher = torch.full((1, 1, 1, 2), -1.0), torch.ones(1, 1, 1, 2)
    first, second = torch.tensor([[[1.0, 0.0]]]), torch.tensor([[[0.0, 1.0]]])
    none = torch.zeros(1, 1, 2)
    assert weighted_fgd(student, teacher, foreground=first, background=none).item() == pytest.approx(4)
    assert weighted_fgd(student, teacher, foreground=none, background=second).item() == pytest.approx(2)
    assert weighted_fgd(
        student, teacher, foreground=first, background=second, background_weight=1
    ).item() == pytest.approx(8)


def test_fgd_weighs_by_the_teachers_attention() -> None:
    """A place that the teacher attends to three times as much costs three times as much."""
    teacher = torch.tensor([[[[math.log(3.0), 0.0]]]])  # at T = 1 weights 3/4 and 1/4, that is 1.5 and 0.5
    for place, expected in ((0, 1.5), (1, 0.5)):
        weight = torch.zeros(1, 1, 2)
        weight[..., place] = 1
        value = weighted_fgd(
            teacher - 1, teacher, foreground=weight, background=0 * weight, temperature=1, attention_weight=0
        )
        assert value.item() == pytest.approx(expected)


def test_fgd_looks_where_the_boxes_are() -> None:
    """Inside a box and outside, the attention at T = 0.5, half the background, and the difference of attentions."""
    student, teacher = draw("fgd", 0), draw("fgd", 1)
    boxes, present = torch.tensor([[[0.0, 0, 8, 16]]]).repeat(2, 1, 1), torch.ones(2, 1, dtype=torch.bool)
    foreground, background = foreground_weights(boxes, present, image=(16, 24), size=(2, 3))
    assert foreground.sum() == background.sum() == 2
    expected = weighted_fgd(
        student,
        teacher,
        foreground=foreground,
        background=background,
        temperature=0.5,
        background_weight=0.5,
        attention_weight=1,
    )
    found = fgd(student, teacher, boxes=boxes, present=present, image=(16, 24))
    assert found.item() == pytest.approx(expected.item())


def test_fgd_matches_attention() -> None:
    """Without places that weigh, what is left is the attention: (1.5, 0.5) against (1, 1) differs by 0.5 on average."""
    teacher = torch.tensor([[[[math.log(3.0), 0.0]]]])
    none = torch.zeros(1, 1, 2)
    value = weighted_fgd(
        torch.zeros(1, 1, 1, 2), teacher, foreground=none, background=none, temperature=1, attention_weight=2
    )
    assert value.item() == pytest.approx(2 * 0.5)
    # Two channels of one place: (1.5, 0.5) over channels, and nothing over places.
    channels = teacher.view(1, 2, 1, 1)
    none = torch.zeros(1, 1, 1)
    value = weighted_fgd(torch.zeros(1, 2, 1, 1), channels, foreground=none, background=none, temperature=1)
    assert value.item() == pytest.approx(0.5)


def test_hinton_by_hand() -> None:
    """At T = 1, odds 3:1 against even ones; at T = 2, logits twice as large cost four times as much."""
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3.0), 0.0]])
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kl(student, teacher, temperature=1).item() == pytest.approx(expected)
    assert kl(student + 4, 2 * teacher, temperature=2).item() == pytest.approx(4 * expected)


def test_margin_by_hand() -> None:
    """Odds of 3:1 against even ones, weighed by 1/4; at T = 2 the divergence of half the margins counts four times."""
    student, teacher = torch.zeros(1, 2, 2), torch.tensor([[[0.0, math.log(3.0)]]]).repeat(1, 2, 1)
    where = torch.tensor([[True, False]])
    assert margin_divergence(student, teacher, where, count=torch.tensor(2.0)).item() == pytest.approx(
        0.25 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)) / 2
    )
    odds = 3**0.5 / (1 + 3**0.5)
    expected = 0.25 * 4 * (odds * math.log(2 * odds) + (1 - odds) * math.log(2 * (1 - odds)))
    found = margin_divergence(student, teacher, where, count=ONE, temperature=2)
    assert found.item() == pytest.approx(expected, rel=1e-5)


def test_margins_count_where_the_teacher_sees_a_face() -> None:
    """Positive priors, mined ones, and the negative ones that the teacher scores above `teacher_score`."""
    student, teacher = torch.zeros(1, 5, 2), torch.tensor([[[0, -9.0], [0, -9], [0, 0], [0, -9], [0, 0]]])
    names = ("positive", "mined", "negative")
    masks = {name: torch.tensor([[number == place for place in range(5)]]) for number, name in enumerate(names)}
    masks["negative"] |= torch.tensor([[False, False, False, True, False]])
    teacher[..., 1] += 0.1
    found = margin(student, teacher, **masks, count=ONE, teacher_score=0.2)
    where = torch.tensor([[True, True, True, False, False]])
    assert found.item() == pytest.approx(margin_divergence(student, teacher, where, count=ONE).item())


def test_dkd_by_hand() -> None:
    """Teacher 1/2, 3/8, 1/8 against thirds: the label's part is KL(1/2 : 1/3), the rest's KL(3/4 : 1/2)."""
    student, teacher = torch.zeros(1, 3), torch.tensor([[4.0, 3.0, 1.0]]).log()
    label = torch.tensor([0])
    sure = 0.5 * math.log(0.5 / (1 / 3)) + 0.5 * math.log(0.5 / (2 / 3))
    rest = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    value = dkd(student, teacher, labels=label, temperature=1, target=2, rest=3)
    assert value.item() == pytest.approx(2 * sure + 3 * rest)


def test_dkd_is_hinton_where_the_rest_weighs_what_the_teacher_leaves() -> None:
    """With the rest weighed by 1 - p(label) of the teacher, the two parts add up to plain distillation."""
    student, teacher = draw("dkd", 0)[:1], draw("dkd", 1)[:1]
    left = 1 - (teacher / 4).softmax(dim=1)[0, 0].item()
    value = dkd(student, teacher, labels=torch.tensor([0]), rest=left)
    torch.testing.assert_close(value, kl(student, teacher))


def test_dkd_is_refused_for_two_classes() -> None:
    """Two classes leave one beside the label: the reason is given, and what to use."""
    with pytest.raises(UsageError, match=r"three classes or more.*always 0.*use margin for a detector, kl"):
        dkd(torch.zeros(1, 2), torch.zeros(1, 2), labels=torch.tensor([0]))
