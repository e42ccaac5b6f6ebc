"""Matching and losses against values worked out by hand."""

import math

import pytest
import torch
from torch import Tensor

from featherpress.compress.data.samples import Batch
from featherpress.compress.distillation.losses.features import pkd
from featherpress.compress.distillation.losses.outputs import margin_divergence, smooth_l1
from featherpress.compress.tasks.detection import loss
from featherpress.compress.tasks.detection.assignment import Targets, match_priors, pairwise_iou
from featherpress.compress.tasks.detection.loss import detection_loss, mine_negatives
from featherpress.models.priors import PriorSpec, decode_boxes

ONE = torch.tensor(1.0)


def batch_of(boxes: list[list[list[float]]], *, ignored: list[list[bool]] | None = None) -> Batch:
    """Build a batch of 64-pixel images; rows that are shorter are padded."""
    most = max(len(rows) for rows in boxes)
    most = max(most, 1)
    present = torch.tensor([[i < len(rows) for i in range(most)] for rows in boxes])
    padded = torch.tensor([[*rows, *[[0.0] * 4] * (most - len(rows))] for rows in boxes])
    flags = [[*row, *[False] * (most - len(row))] for row in ignored or [[] for _ in boxes]]
    return Batch(
        images=torch.zeros(len(boxes), 3, 64, 64, dtype=torch.uint8),
        boxes=padded,
        landmarks=padded[..., :2].repeat(1, 1, 5),
        present=present,
        has_landmarks=present,
        ignored=torch.tensor(flags),
        labels=torch.zeros_like(present, dtype=torch.int64),
        keys=torch.zeros(len(boxes), 2, dtype=torch.int64),
    )


PRIORS = PriorSpec().priors(64, 64)


def test_iou_of_known_boxes() -> None:
    """Two unit squares shifted by half overlap by a third; empty boxes by nothing."""
    boxes = torch.tensor([[0.0, 0, 1, 1], [5, 5, 5, 5]])
    others = torch.tensor([[0.5, 0, 1.5, 1], [5, 5, 5, 5]])
    torch.testing.assert_close(pairwise_iou(boxes, others), torch.tensor([[1 / 3, 0], [0, 0]]))


def test_prior_that_is_the_face() -> None:
    """A face that is exactly a prior matches it, and what the prior should predict is zero."""
    batch = batch_of([[[12.0, 12, 28, 28]]])  # centre (20, 20), side 16
    targets = match_priors(PRIORS, batch)
    own = (torch.tensor([20.0, 20, 16, 16]) == PRIORS).all(dim=1).nonzero().item()
    assert targets.positive[0, own]
    torch.testing.assert_close(targets.boxes[0, own], torch.zeros(4), atol=1e-6, rtol=0)


def test_targets_decode_to_their_faces() -> None:
    """Whatever prior matches, its target decodes to the face's box."""
    batch = batch_of([[[3.0, 5, 30, 41], [40, 40, 60, 62]]])
    targets = match_priors(PRIORS, batch)
    decoded = decode_boxes(targets.boxes, PRIORS)[targets.positive]
    wanted = batch.boxes[0][targets.face[targets.positive]]
    torch.testing.assert_close(decoded, wanted, atol=1e-3, rtol=1e-4)
    assert set(targets.face[targets.positive].tolist()) == {0, 1}


def test_tiny_face_keeps_its_best_prior() -> None:
    """A face no prior overlaps by the threshold still gets the one it overlaps most, and no other."""
    targets = match_priors(PRIORS, batch_of([[[18.0, 18, 22, 22]]]))
    assert targets.positive.sum() == 1


def test_two_faces_never_lose_both() -> None:
    """Two tiny faces that want one prior: one of them gets it."""
    targets = match_priors(PRIORS, batch_of([[[18.0, 18, 22, 22], [18, 18, 22, 22]]]))
    assert targets.positive.sum() == 1
    assert targets.face[targets.positive].item() == 1


def test_ignored_faces_are_neither() -> None:
    """Priors on an ignored face are neither positive nor negative; the others stay negative."""
    batch = batch_of([[[12.0, 12, 28, 28]], []], ignored=[[True], []])
    targets = match_priors(PRIORS, batch)
    assert not targets.positive.any()
    assert 0 < (~targets.negative[0]).sum() < 20
    assert targets.negative[1].all()


def test_a_batch_equals_its_images() -> None:
    """Matching a batch gives what matching each image alone gives."""
    boxes = [[[3.0, 5, 30, 41], [40, 40, 60, 62]], [], [[10.0, 10, 14, 15]]]
    together = match_priors(PRIORS, batch_of(boxes))
    for row, faces in enumerate(boxes):
        without_teachers = match_priors(PRIORS, batch_of([faces]))
        assert torch.equal(together.positive[row], without_teachers.positive[0])
        assert torch.equal(together.boxes[row], without_teachers.boxes[0])


def simple_targets(positive: list[bool], negative: list[bool]) -> Targets:
    p, n = torch.tensor([positive]), torch.tensor([negative])
    zeros = [torch.zeros(1, len(positive), width) for width in (4, 10)]
    priors = torch.zeros(len(positive), 4)
    return Targets(
        priors=priors, positive=p, negative=n, has_landmarks=p, face=p.long(), boxes=zeros[0], landmarks=zeros[1]
    )


def test_supervised_loss_by_hand() -> None:
    """One positive and one negative at even odds cost 2 ln 2; a delta of 2 costs 1.5 by smooth-L1, one of 0.5 0.125."""
    targets = simple_targets([True, False], [False, True])
    boxes = torch.tensor([[[2.0, 0.5, 0, 0], [9, 9, 9, 9]]])
    landmarks = torch.zeros(1, 2, 10)
    landmarks[0, 0, 0] = 3.0
    loss = detection_loss(boxes, torch.zeros(1, 2, 2), landmarks, targets, torch.ones(2))
    assert loss.classification.item() == pytest.approx(2 * math.log(2))
    assert loss.box.item() == pytest.approx(1.5 + 0.125)
    assert loss.landmark.item() == pytest.approx(2.5)


def test_terms_are_divided_by_the_counts_given() -> None:
    """The first divides class and box, the second the landmarks, whatever the batch's own."""
    targets = simple_targets([True, True], [False, False])
    logits = torch.zeros(1, 2, 2)
    far = torch.full((1, 2, 4), 1.5), torch.full((1, 2, 10), 1.5)
    loss = detection_loss(far[0], logits, far[1], targets, torch.tensor([4.0, 5.0]))
    assert loss.classification.item() == pytest.approx(2 * math.log(2) / 4)
    assert (loss.box.item(), loss.landmark.item()) == pytest.approx((8 / 4, 20 / 5))


def test_mining_takes_the_hardest_seven() -> None:
    """For one positive the seven hardest negatives are chosen, never an ignored prior."""
    hardness = torch.arange(12.0)[None]
    targets = simple_targets([True] + [False] * 11, [False] + [True] * 10 + [False])
    chosen = mine_negatives(hardness, targets)
    assert chosen[0].nonzero()[:, 0].tolist() == [4, 5, 6, 7, 8, 9, 10]


def test_empty_batch_still_learns_backgrounds() -> None:
    """Images without a face give seven negatives, and finite terms with a gradient."""
    targets = match_priors(PRIORS, batch_of([[], []]))
    logits = torch.zeros(2, len(PRIORS), 2, requires_grad=True)
    loss = detection_loss(
        torch.zeros(2, len(PRIORS), 4), logits, torch.zeros(2, len(PRIORS), 10), targets, torch.ones(2)
    )
    loss.classification.backward()
    assert loss.negatives.sum() == 7
    assert loss.box.item() == loss.landmark.item() == 0
    assert logits.grad is not None
    assert logits.grad.abs().sum() > 0


def features(seed: int) -> Tensor:
    return torch.randn(3, 5, 6, 7, generator=torch.Generator().manual_seed(seed))


def test_feature_loss_is_one_minus_correlation() -> None:
    """The feature loss of random maps is 1 minus the mean of the channels' Pearson correlations."""
    student, teacher = features(0), features(1)
    rows = [torch.stack([x.transpose(0, 1).flatten(1)[c] for x in (student, teacher)]) for c in range(5)]
    expected = 1 - sum(torch.corrcoef(pair)[0, 1] for pair in rows) / 5
    torch.testing.assert_close(pkd(student, teacher), torch.as_tensor(expected), rtol=1e-4, atol=1e-5)


def test_feature_loss_ignores_scale_and_shift() -> None:
    """A teacher scaled and shifted by channel teaches the same, and a student like it has nothing to learn."""
    student, teacher = features(0), features(1)
    scaled = teacher * torch.tensor([2.0, 9, 0.5, 4, 7])[None, :, None, None] + 3
    torch.testing.assert_close(pkd(student, teacher * 1e-4), pkd(student, teacher), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(pkd(student, scaled), pkd(student, teacher), rtol=1e-4, atol=1e-5)
    assert pkd(scaled, teacher).item() == pytest.approx(0, abs=1e-5)


def test_dead_teacher_channels_are_left_out() -> None:
    """A channel in which the teacher does not vary does not count, and nothing becomes infinite."""
    student, teacher = features(0), features(1)
    teacher[:, 2] = 4.0
    kept = [0, 1, 3, 4]
    torch.testing.assert_close(pkd(student, teacher), pkd(student[:, kept], teacher[:, kept]))
    assert pkd(student * 0, teacher * 0).isfinite()


def test_class_loss_by_hand() -> None:
    """Margins 0 and 2, T = 1: weight p - 1/2, divergence p ln(p / 0.5) + q ln(q / 0.5)."""
    student = torch.zeros(1, 1, 2)
    teacher = torch.tensor([[[0.0, 2.0]]])
    p = 1 / (1 + math.exp(-2))
    expected = (p - 0.5) * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    where = torch.ones(1, 1, dtype=torch.bool)
    assert margin_divergence(student, teacher, where, count=ONE).item() == pytest.approx(expected, rel=1e-5)


def test_class_loss_knows_margins_only() -> None:
    """What both logits share makes no difference, and unmarked priors are not looked at."""
    student, teacher = torch.randn(2, 9, 2), torch.randn(2, 9, 2)
    where = torch.rand(2, 9) > 0.5
    base = margin_divergence(student, teacher, where, count=ONE, temperature=2)
    torch.testing.assert_close(margin_divergence(student + 5, teacher - 3, where, count=ONE, temperature=2), base)
    elsewhere = torch.where(where[..., None], student, student + 100)
    torch.testing.assert_close(margin_divergence(elsewhere, teacher, where, count=ONE, temperature=2), base)


def test_regression_loss_by_hand() -> None:
    """A delta off by 2 costs 1.5; unmarked priors cost nothing."""
    student = torch.zeros(1, 2, 4)
    teacher = torch.tensor([[[2.0, 0, 0, 0], [7, 7, 7, 7]]])
    where = torch.tensor([[True, False]])
    assert smooth_l1(student, teacher, where, count=torch.tensor(3.0)).item() == pytest.approx(0.5)


def test_two_terms_of_a_step_ask_once_where_a_teacher_is_nearer(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pair of outputs is compared once, another teacher's anew."""
    asked: list[Tensor] = []
    monkeypatch.setattr(loss, "teacher_is_nearer", lambda *_, **__: asked.append(torch.rand(1)) or asked[-1])
    nearer, student, one, other = loss.Nearer(None), {}, {"boxes": ONE}, {"boxes": ONE}  # type: ignore[arg-type, var-annotated]
    assert nearer(student, one) is nearer(student, one)
    assert nearer(student, other) is not nearer(student, one)
    assert len(asked) == 3
