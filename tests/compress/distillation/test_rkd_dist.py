"""RKD and DIST against values worked out by hand; masks of all losses that take one."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from featherpress.compress.distillation.losses.dist import dist
from featherpress.compress.distillation.losses.features import attention_transfer, cwd, fitnets, mgd, pkd
from featherpress.compress.distillation.losses.outputs import binary, dkd, kl
from featherpress.compress.distillation.losses.registry import find_loss, list_losses
from featherpress.compress.distillation.losses.rkd import rkd

Loss = Callable[..., Tensor]
FEATURES: dict[str, Loss] = {"pkd": pkd, "cwd": cwd, "fitnets": fitnets, "attention": attention_transfer, "mgd": mgd}
LOGITS: dict[str, Loss] = {"binary": binary, "kl": kl, "dkd": dkd, "dist": dist}
KEEP = torch.tensor([True, False, True, True, False])


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def context(name: str, positions: tuple[int, ...]) -> dict[str, Tensor]:
    labels = torch.randint(0, 4, positions, generator=torch.Generator().manual_seed(3))
    return {"labels": labels} if name == "dkd" else {}


def huber(difference: float) -> float:
    return difference**2 / 2 if abs(difference) < 1 else abs(difference) - 0.5


def test_rkd_distances_by_hand() -> None:
    """Points at 0, 1, 2 have distances 1, 1, 2 (mean 4/3); at 0, 1, 4 they have 1, 3, 4 (mean 8/3)."""
    student, teacher = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([[0.0], [1.0], [4.0]])
    pairs = [(1 / (4 / 3), 1 / (8 / 3)), (1 / (4 / 3), 3 / (8 / 3)), (2 / (4 / 3), 4 / (8 / 3))]
    expected = sum(huber(s - t) for s, t in pairs) / 3
    assert rkd(student, teacher, distance=1, angle=0).item() == pytest.approx(expected)
    assert rkd(student, teacher, distance=3, angle=0).item() == pytest.approx(3 * expected)


def test_rkd_angles_by_hand() -> None:
    """A right angle with two of 45 degrees against an equilateral triangle, whose cosines are all 1/2."""
    student = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    teacher = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(3) / 2]])
    # Of 27 places of the cosines each corner fills two; a corner between a point and itself is the same for both.
    expected = 2 * (huber(0 - 0.5) + 2 * huber(math.sqrt(0.5) - 0.5)) / 27
    assert rkd(student, teacher, distance=0, angle=1).item() == pytest.approx(expected, rel=1e-5)
    assert rkd(student, teacher, distance=0, angle=2).item() == pytest.approx(2 * expected, rel=1e-5)


@pytest.mark.parametrize("shape", [(5, 6), (5, 3, 2, 2), (5, 4, 3)])
def test_rkd_sees_relations_alone(shape: tuple[int, ...]) -> None:
    """Moved, turned and scaled examples lie to each other as before; widths may differ; another order is seen."""
    student = draw(*shape)
    flat = student.flatten(1)
    turn = torch.linalg.qr(draw(flat.shape[1], flat.shape[1], seed=1)).Q
    assert rkd(student, 3 * flat @ turn + 7).item() == pytest.approx(0, abs=1e-6)
    assert rkd(student, torch.cat([flat, torch.zeros(5, 9)], dim=1)).item() == pytest.approx(0, abs=1e-6)
    assert rkd(student, flat.roll(1, dims=0)).item() > 1e-3


@pytest.mark.parametrize("student", [draw(1, 3), torch.ones(4, 3)])
def test_rkd_of_nothing_to_relate(student: Tensor) -> None:
    """One example, or many alike, give a finite value and gradient; one example teaches nothing."""
    student = student.clone().requires_grad_()
    value = rkd(student, draw(len(student), 3, seed=1))
    value.backward()
    assert student.grad is not None
    assert value.isfinite()
    assert student.grad.isfinite().all()
    assert len(student) > 1 or value.item() == 0


def test_dist_by_hand() -> None:
    """Probabilities (1/2, 3/8, 1/8) against (1/8, 3/8, 1/2): r = -0.0469 / 0.0729; one example has no other to rank."""
    student, teacher = (torch.tensor([odds]).log() for odds in ([4.0, 3.0, 1.0], [1.0, 3.0, 4.0]))
    centred = [[p - 1 / 3 for p in odds] for odds in ([1 / 2, 3 / 8, 1 / 8], [1 / 8, 3 / 8, 1 / 2])]
    product = sum(a * b for a, b in zip(*centred, strict=True))
    expected = 1 - product / sum(a * a for a in centred[0])
    assert dist(student, teacher, temperature=1).item() == pytest.approx(expected, rel=1e-5)
    assert dist(2 * student, 2 * teacher, temperature=2, inter=3).item() == pytest.approx(4 * 3 * expected, rel=1e-5)


def test_dist_over_the_batch_by_hand() -> None:
    """Two examples whose classes the student ranks the other way round: every r over the batch is -1."""
    student = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    assert dist(student, student.flip(0), temperature=1, inter=0).item() == pytest.approx(2, rel=1e-5)
    assert dist(student, student.flip(0), temperature=1, inter=0, intra=0.5).item() == pytest.approx(1, rel=1e-5)


def test_dist_does_not_see_how_sure_a_teacher_is() -> None:
    """Probabilities drawn towards even odds rank as before, which costs nothing; `kl` sees it."""
    teacher = draw(6, 4)
    softer = (0.5 * teacher.softmax(dim=1) + 0.5 / 4).log()
    assert dist(softer, teacher, temperature=1).item() == pytest.approx(0, abs=1e-5)
    assert kl(softer, teacher, temperature=1).item() > 1e-2


def test_dist_of_even_odds_has_a_gradient() -> None:
    """Constant logits have no correlation; value and gradient are finite."""
    student = torch.zeros(3, 4).requires_grad_()
    dist(student, draw(3, 4)).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_these_are_all_losses_with_a_mask() -> None:
    """Every registered loss that takes a mask is tested here."""
    assert {name for name in list_losses() if "mask" in find_loss(name).context} == {*FEATURES, *LOGITS}


@pytest.mark.parametrize("name", FEATURES)
def test_masked_places_are_cut_out(name: str) -> None:
    """Columns that a mask leaves out count as if the maps had been made without them."""
    loss = FEATURES[name]
    student, teacher = draw(2, 3, 4, 5), draw(2, 3, 4, 5, seed=1)
    mask = KEEP.expand(2, 1, 4, 5)
    torch.testing.assert_close(loss(student, teacher, mask=mask), loss(student[..., KEEP], teacher[..., KEEP]))
    torch.testing.assert_close(loss(student, teacher, mask=mask | True), loss(student, teacher))


@pytest.mark.parametrize("name", FEATURES)
def test_padding_of_one_image_is_cut_out(name: str) -> None:
    """An image of which nothing is kept counts as if the batch had been made without it."""
    loss = FEATURES[name]
    student, teacher = draw(3, 3, 4, 5), draw(3, 3, 4, 5, seed=1)
    mask = torch.ones(3, 1, 4, 5, dtype=torch.bool)
    mask[1] = False
    torch.testing.assert_close(loss(student, teacher, mask=mask), loss(student[[0, 2]], teacher[[0, 2]]))


@pytest.mark.parametrize("name", ["cwd", "attention"])
def test_images_may_keep_other_places(name: str) -> None:
    """Losses by image are the mean over images, each without its own padding."""
    loss = FEATURES[name]
    student, teacher = draw(2, 3, 1, 5), draw(2, 3, 1, 5, seed=1)
    lengths = (2, 5)
    mask = torch.stack([torch.arange(5) < length for length in lengths])[:, None, None]
    alone = [loss(s[None, ..., :n], t[None, ..., :n]) for s, t, n in zip(student, teacher, lengths, strict=True)]
    torch.testing.assert_close(loss(student, teacher, mask=mask), torch.stack(alone).mean())


@pytest.mark.parametrize("name", ["pkd", "fitnets", "mgd"])
def test_images_may_keep_other_numbers_of_places(name: str) -> None:
    """Losses by place are the mean over all kept places, whichever image they are of."""
    loss = FEATURES[name]
    student, teacher = draw(2, 3, 1, 5), draw(2, 3, 1, 5, seed=1)
    mask = torch.stack([torch.arange(5) < length for length in (2, 5)])[:, None, None]
    s, t = (x.movedim(1, -1)[mask[:, 0]].T[None, :, None] for x in (student, teacher))
    torch.testing.assert_close(loss(student, teacher, mask=mask), loss(s, t))


@pytest.mark.parametrize("name", LOGITS)
def test_masked_positions_are_cut_out(name: str) -> None:
    """Positions of logits (N, C, L) that a mask leaves out count as if they were not there."""
    loss = LOGITS[name]
    student, teacher = draw(2, 4, 5), draw(2, 4, 5, seed=1)
    mask = torch.stack([KEEP, ~KEEP])
    given = context(name, (2, 5))
    cut = {key: value[mask] for key, value in given.items()}
    s, t = (x.movedim(1, -1)[mask] for x in (student, teacher))
    torch.testing.assert_close(loss(student, teacher, mask=mask, **given), loss(s, t, **cut))
    torch.testing.assert_close(loss(student, teacher, mask=mask | True, **given), loss(student, teacher, **given))


@pytest.mark.parametrize("name", LOGITS)
def test_pixels_are_examples(name: str) -> None:
    """Logits (N, C, H, W) are compared over the class axis, every pixel by itself."""
    loss = LOGITS[name]
    student, teacher = draw(2, 4, 3, 2), draw(2, 4, 3, 2, seed=1)
    given = context(name, (2, 3, 2))
    rows = {key: value.flatten() for key, value in given.items()}
    s, t = (x.movedim(1, -1).reshape(-1, 4) for x in (student, teacher))
    torch.testing.assert_close(loss(student, teacher, **given), loss(s, t, **rows))


@pytest.mark.parametrize("name", [*FEATURES, *LOGITS])
def test_nothing_kept_teaches_nothing(name: str) -> None:
    """A mask that keeps nothing gives 0 and a gradient of 0, not one that is not a number."""
    places = name in FEATURES
    shape = (2, 4, 3, 5) if places else (2, 4, 5)
    student = draw(*shape).requires_grad_()
    mask = torch.zeros((2, 1, 3, 5) if places else (2, 5), dtype=torch.bool)
    loss = (FEATURES | LOGITS)[name]
    value = loss(student, draw(*shape, seed=1), mask=mask, **context(name, (2, 5)))
    value.backward()
    assert student.grad is not None
    assert value.item() == 0
    assert student.grad.abs().max() == 0
