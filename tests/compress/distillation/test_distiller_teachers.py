"""Several teachers, schedules, the balance with the task, placebos, ignored labels."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.compress.distillation.distiller import Distiller
from featherpress.compress.distillation.terms import Features, Logits
from featherpress.errors import UsageError

from .conftest import Net, distil, draw, make_net, take

PAIR = {"a": 5, "b": 6}
LABELS = torch.tensor([0, 2, 2, 4])


def pair(student: Net, terms: Any, **keywords: Any) -> Distiller:
    return distil(student, {name: make_net(width, seed=width) for name, width in PAIR.items()}, terms, **keywords)


def alone(student: Net, name: str, terms: Any) -> float:
    return take(distil(student, make_net(PAIR[name], seed=PAIR[name]), terms), student).item()


@pytest.mark.parametrize(("weights", "share"), [(None, 0.5), ({"a": 3.0, "b": 1.0}, 0.75)])
def test_terms_of_several_teachers_are_averaged(student: Net, weights: Any, share: float) -> None:
    """The mean by `teacher_weights`, which need not sum to 1."""
    terms = {"class": Logits("kl", weight=2), "map": Features("attention", student="two", teacher="two")}
    kd = pair(student, terms, teacher_weights=weights)
    expected = share * alone(student, "a", terms) + (1 - share) * alone(student, "b", terms)
    assert take(kd, student).item() == pytest.approx(expected, rel=1e-5)


def test_term_of_one_teacher_counts_whole(student: Net) -> None:
    """`of` names the only teacher of a term, which then is not divided; paths may be by teacher."""
    terms = {
        "class": Logits("kl", of="b"),
        "map": Features("attention", student="two", teacher={"a": "two", "b": "one"}),
        "only": Features("attention", student="two", teacher={"a": "one"}, of="a"),
    }
    kd, x = pair(student, terms, teacher_weights={"a": 0.9, "b": 0.1}), draw()
    with kd.step(x) as step:
        out = student(x)
    step.loss(out)
    one, two = (Features("attention", student="two", teacher=path) for path in ("one", "two"))
    assert step.parts["class"].item() == pytest.approx(alone(student, "b", {"it": Logits("kl")}), rel=1e-5)
    assert step.parts["only"].item() == pytest.approx(alone(student, "a", {"it": one}), rel=1e-5)
    mixed = 0.9 * alone(student, "a", {"it": two}) + 0.1 * alone(student, "b", {"it": one})
    assert step.parts["map"].item() == pytest.approx(mixed, rel=1e-5)


def test_teacher_that_no_term_is_about_does_not_run(student: Net) -> None:
    """Only who is compared with is asked, which changes with the terms that are on."""
    kd = pair(student, {"class": Logits("kl", of="a"), "late": Logits("dist", start=0.5)})
    kd.teachers["b"].model.register_forward_pre_hook(lambda *_: pytest.fail("the teacher ran"))
    take(kd, student, at=0.2)
    with pytest.raises(pytest.fail.Exception):
        take(kd, student, at=0.7)


@pytest.mark.parametrize(("at", "turn"), [(0.0, "a"), (0.24, "a"), (0.25, "b"), (1.0, "b")])
def test_teachers_one_after_the_other(student: Net, at: float, turn: str) -> None:
    """With shares 1 to 3 the first teaches for a quarter of the training, and only who teaches runs."""
    terms = {"class": Logits("kl")}
    kd = pair(student, terms, teacher_weights={"a": 1.0, "b": 3.0}, order="sequential")
    asked: list[str] = []
    for name, teacher in kd.teachers.items():
        teacher.model.register_forward_pre_hook(lambda *_, name=name: asked.append(name))
    assert take(kd, student, at=at).item() == pytest.approx(alone(student, turn, terms), rel=1e-6)
    assert asked == [turn]


def test_teachers_whose_outputs_are_missing_answer(student: Net) -> None:
    """Of several teachers those that were not given outputs are asked; none is left out."""
    terms = {"class": Logits("kl")}
    kd, x = pair(student, terms), draw()
    expected = take(kd, student)
    given = {"a": kd.teachers["a"].ask(x)}
    for outputs in ({}, given):
        assert take(kd, student, teacher_outputs=outputs).item() == expected.item()


@pytest.mark.parametrize(("at", "factor"), [(0.1, 0.0), (0.2, 0.0), (0.4, 0.5), (0.6, 1.0), (0.89, 1.0), (0.9, 0.0)])
@pytest.mark.parametrize("own", [True, False])
def test_schedule(student: Net, at: float, factor: float, own: bool) -> None:
    """From a fifth on a term grows over two fifths, and is off for the last tenth; its times or the Distiller's."""
    times: dict[str, Any] = {"ramp": 0.4, "stop": 0.1}
    terms = {"class": Logits("kl", start=0.2, **(times if own else {}))}
    kd = distil(student, terms=terms, **({} if own else times))
    whole = take(distil(student, terms={"class": Logits("kl")}), student).item()
    assert take(kd, student, at=at).item() == pytest.approx(factor * whole, rel=1e-5)


def test_terms_keep_their_own_times(student: Net) -> None:
    """A term's `stop` of 0 stands against the Distiller's."""
    kd = distil(student, terms={"a": Logits("kl"), "b": Logits("dist", stop=0)}, stop=0.5)
    with kd.step(draw(), at=0.7) as step:
        out = student(draw())
    step.loss(out)
    assert list(step.parts) == ["b"]


@pytest.mark.parametrize(
    "keywords", [{"ramp": 0.1}, {"stop": 0.1}, {"order": "sequential"}, {"terms": {"class": Logits("kl", start=0.5)}}]
)
def test_schedule_needs_to_know_the_time(student: Net, keywords: Any) -> None:
    """With any schedule `at` is needed, and must be a fraction; without one it is not."""
    kd = distil(student, **keywords)
    with pytest.raises(UsageError, match="needs `at`"):
        kd.step(draw())
    with pytest.raises(UsageError, match="`at` is the fraction"):
        kd.step(draw(), at=30)
    distil(student).step(draw())


def test_nothing_runs_while_all_terms_are_off(student: Net) -> None:
    """When all is off the teacher is not asked, the loss is a 0 to add, and `verify` has nothing to complain of."""
    teacher = make_net(6)
    kd, x = distil(student, teacher, stop=0.5), draw()
    teacher.register_forward_pre_hook(lambda *_: pytest.fail("the teacher ran"))
    with kd.step(x, at=0.5) as step:
        out = student(x)
    loss = step.loss(out)
    (out.sum() + loss).backward()
    assert loss == 0
    kd.verify(torch.optim.SGD([*student.parameters(), *kd.parameters()], lr=1))


def test_factors_of_ones_own(student: Net) -> None:
    """`factors` multiply the terms, those that are missing are off, and unknown ones are refused."""
    kd, x = distil(student), draw()
    with kd.step(x, factors={"class": 0.25}) as step:
        out = student(x)
    assert step.loss(out).item() == pytest.approx(
        0.25 * take(distil(student, terms={"class": Logits("kl")}), student).item()
    )
    with pytest.raises(UsageError, match="'clas', which is no term; there are class, map"):
        kd.step(x, factors={"clas": 1.0})
    for factor in (-1, math.nan, math.inf):
        with pytest.raises(UsageError, match="for map; a factor is 0 or more and finite"):
            kd.step(x, factors={"map": factor})


@pytest.mark.parametrize("share", [0.1, 0.4, 2.0])
@pytest.mark.parametrize("terms", [None, {"class": Logits("kl", weight=30)}])
def test_balance_gives_the_share_asked_for(student: Net, share: float, terms: Any) -> None:
    """The ratio of gradient norms, measured anew after scaling, is the share, whatever the weights."""
    kd, x = distil(student, terms=terms, balance=share), draw()
    with kd.step(x) as step:
        out = student(x)
    task = F.cross_entropy(out, LABELS)
    loss = step.loss(out, task=task)
    assert step.gradient_ratio(task) == pytest.approx(share, rel=1e-4)
    tapped = step.levels["map"] if terms is None else [out]
    pulls = [torch.autograd.grad(each, tapped, retain_graph=True)[0].norm() for each in (loss, task)]
    assert pulls[0] / pulls[1] == pytest.approx(share, rel=1e-4)


def test_balance_leaves_the_ramp(student: Net) -> None:
    """A term at a quarter of its weight pulls with a quarter of the share; the factor is the grown terms'."""
    kd, x = distil(student, balance=0.4), draw()
    with kd.step(x, factors=dict.fromkeys(kd.terms, 0.25)) as step:
        out = student(x)
    task = F.cross_entropy(out, LABELS)
    step.loss(out, task=task)
    assert step.gradient_ratio(task) == pytest.approx(0.1, rel=1e-4)


def test_balance_needs_the_task(student: Net) -> None:
    """Without the task's loss there is nothing to balance with."""
    with pytest.raises(UsageError, match=r"`balance` needs.*task=loss"):
        take(distil(student, balance=0.4), student)


def test_balance_needs_a_task_with_gradient(student: Net) -> None:
    """The value of the task's loss is not enough; a step without gradient, as in validation, measures nothing."""
    kd, x = distil(student, balance=0.4), draw()
    with torch.no_grad():
        with kd.step(x) as step:
            out = student(x)
        step.loss(out, task=F.cross_entropy(out, LABELS))
    assert kd.balance is not None
    assert kd.balance.factor == 1
    with kd.step(x) as step:
        out = student(x)
    with pytest.raises(UsageError, match="`task` has none"):
        step.loss(out, task=F.cross_entropy(out, LABELS).detach())


def test_balance_is_measured_where_the_student_learns(student: Net) -> None:
    """A level of layers that are frozen has no gradient."""
    student.one.requires_grad_(False)
    both = ["one", "two"]
    kd, x = distil(student, terms={"maps": Features("pkd", student=both, teacher=both)}, balance=0.4), draw()
    with kd.step(x) as step:
        out = student(x)
    task = F.cross_entropy(out, LABELS)
    step.loss(task=task)
    assert step.gradient_ratio(task) == pytest.approx(0.4, rel=1e-4)


def test_balance_is_measured_every_twentieth_step_and_smoothed(student: Net) -> None:
    """A task ten times as steep is seen at step 20, and counts a fifth."""
    kd, x = distil(student, terms={"class": Logits("kl")}, balance=0.4), draw()
    factors = []
    for number in range(22):
        with kd.step(x) as step:
            out = student(x)
        step.loss(out, task=F.cross_entropy(out, LABELS) * (1 if number == 0 else 10))
        factors.append(kd.balance.factor if kd.balance else math.nan)
    assert len(set(factors[:20])) == 1
    assert len(set(factors[20:])) == 1
    assert factors[20] == pytest.approx(factors[0] / (0.8 + 0.2 / 10), rel=1e-4)


def test_balance_of_a_compiled_student(student: Net) -> None:
    """A step that measures runs eagerly, as the taps of compiled code are not on the way to the task's loss."""
    torch._dynamo.reset()
    kd, x = distil(student, balance=0.4), draw()
    compiled = torch.compile(student, backend="aot_eager")
    factors = []
    for model in (student, compiled):
        kd.steps = 0
        with kd.step(x) as step:
            out = model(x)
        step.loss(out, task=F.cross_entropy(out, LABELS))
        factors.append(kd.balance.factor if kd.balance else math.nan)
    assert factors[0] == pytest.approx(factors[1])
    assert torch.compiler.is_compiling() is False
    torch._dynamo.reset()


def test_shuffled_is_anothers_knowledge(student: Net) -> None:
    """Every example hears what the teacher says of the one before it."""
    x = draw()
    kd, plain = distil(student, placebo="shuffled", seed=1), distil(student, seed=1)
    said = plain.teachers["teacher"].ask(x)
    rolled = said.filled([each[[3, 0, 1, 2]] for each in said.tensors()])
    assert take(kd, student).item() == take(plain, student, teacher_outputs=rolled).item()
    assert take(kd, student).item() != take(plain, student).item()


def test_smoothing_knows_the_labels_alone(student: Net) -> None:
    """The label gets the teacher's mean probability of labels, the other four classes a quarter of the rest each."""
    kd, x = distil(student, placebo="smoothing"), draw()
    with kd.step(x) as step:
        out = student(x)
    loss = step.loss(out, labels=LABELS)
    chance = kd.teachers["teacher"].ask(x).outputs["logits"].softmax(1)[torch.arange(4), LABELS].mean()
    target = torch.full((4, 5), (1 - chance.item()) / 4).scatter(1, LABELS[:, None], chance.item())
    target = (target.log() / 4).softmax(1)
    expected = 16 * F.kl_div((out / 4).log_softmax(1), target, reduction="batchmean")
    assert loss.item() == pytest.approx(expected.item(), rel=1e-4)
    assert list(step.parts) == ["class"]
    assert list(kd.parameters()) == []
    with pytest.raises(UsageError, match="smoothing needs the labels"):
        take(kd, student)
    with pytest.raises(UsageError, match=r"smoothing|above 0"):
        distil(student, terms={"map": Features("pkd", student="two", teacher="two")}, placebo="smoothing")


@pytest.mark.parametrize("ignored", [-100, 255, 3])
def test_smoothing_is_as_sure_as_the_teacher_where_it_counts(ignored: int) -> None:
    """Pixels that are ignored or left out say nothing of how sure the teacher is; a label need not be a class there."""
    student, x = Pixels(), draw(2, 3, 2, 2)
    term = Logits(lambda _s, t, mask=None: t.exp().amax(dim=1)[mask].mean(), ignore_index=ignored)
    kd = distil(student, Pixels(), {"class": term}, example=x, placebo="smoothing")
    labels = torch.tensor([0, ignored, 1, 2, ignored, 0, 1, 2]).view(2, 2, 2)
    mask = torch.tensor([1, 1, 1, 0, 1, 1, 0, 1]).view(2, 2, 2)
    keep = (labels != ignored) & mask.bool()
    with kd.step(x) as step:
        out = student(x)
    chances = kd.teachers["teacher"].ask(x).outputs["logits"].softmax(1).movedim(1, -1)[keep]
    right = chances[torch.arange(len(chances)), labels[keep]].mean().item()
    expected = max(right, (1 - right) / 3)
    assert step.loss(out, labels=labels, mask=mask).item() == pytest.approx(expected, rel=1e-4)


class Pixels(nn.Module):
    """Give every pixel four classes."""

    def __init__(self) -> None:
        super().__init__()
        self.two = nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("loss", ["kl", "dkd", "dist"])
@pytest.mark.parametrize("ignored", [-100, 3])
def test_ignored_and_masked_pixels_do_not_count(loss: str, ignored: int) -> None:
    """Pixels whose label is `ignore_index`, and those that the mask leaves out, are as if they were not there."""
    student, x = Pixels(), draw(2, 3, 2, 2)
    term = Logits(loss) if ignored == -100 else Logits(loss, ignore_index=ignored)
    kd = distil(student, Pixels(), {"class": term}, example=x)
    labels = torch.tensor([0, ignored, 1, 2, ignored, 0, 1, 2]).view(2, 2, 2)
    mask = torch.tensor([1, 1, 1, 0, 1, 1, 0, 1]).view(2, 2, 2)
    keep = (labels != ignored) & mask.bool()
    with kd.step(x) as step:
        out = student(x)
    found = step.loss(out, labels=labels, mask=mask)
    theirs = kd.teachers["teacher"].ask(x).outputs["logits"]
    rows = (each.movedim(1, -1)[keep] for each in (out, theirs))
    known = {"labels": labels[keep]} if loss == "dkd" else {}
    torch.testing.assert_close(found, term.entry.function(*rows, **known))


def test_masked_examples_do_not_count(student: Net) -> None:
    """Of a classifier's outputs a mask (N,) leaves examples out; one over places is not about them."""
    kd, x = distil(student, terms={"class": Logits("kl")}), draw()
    mask = torch.tensor([1, 0, 1, 0])
    losses = []
    for inputs, given in ((x, mask), (x[::2], None), (x, torch.ones(4, 9)), (x, None)):
        with kd.step(inputs) as step:
            out = student(inputs)
        losses.append(step.loss(out, mask=given).item())
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert losses[2] == losses[3] != pytest.approx(losses[0])


def test_masks_that_do_not_fit_or_are_not_taken() -> None:
    """A mask of another shape, and one for a loss that takes none, are refused."""
    student, x = Pixels(), draw(2, 3, 2, 2)

    def mine(ours: Tensor, theirs: Tensor) -> Tensor:
        return (ours - theirs).square().mean()

    loss: Any
    for loss, mask, sentence in (
        ("kl", torch.ones(2, 3, 2), r"mask of \(2, 3, 2\) does not fit logits of \(2, 4, 2, 2\)"),
        (mine, torch.ones(2, 2, 2), "mine takes no mask"),
    ):
        kd = distil(student, Pixels(), {"class": Logits(loss)}, example=x)
        with kd.step(x) as step:
            out = student(x)
        with pytest.raises(UsageError, match=sentence):
            step.loss(out, mask=mask)
    kd = distil(student, Pixels(), {"it": Features("rkd", student="two", teacher="two")}, example=x)
    with kd.step(x) as step:
        student(x)
    with pytest.raises(UsageError, match="rkd takes no mask"):
        step.loss(mask=torch.ones(2, 2, 2))


def test_output_by_name() -> None:
    """Where `output` returns several outputs a term names its own; for a missing one the others are listed."""
    student, x = Pixels(), draw(2, 3, 2, 2)
    several: Any = lambda raw: {"seg": raw, "depth": raw[:, :1]}  # noqa: E731
    kd = distil(student, Pixels(), {"it": Logits("kl", output="seg")}, example=x, output=several)
    plain = distil(student, kd.teachers["teacher"].model, {"it": Logits("kl")}, example=x)
    assert take(kd, student, x).item() == take(plain, student, x).item()
    with pytest.raises(UsageError, match="no output 'logits'; it has seg, depth"):
        distil(student, Pixels(), {"it": Logits("kl")}, example=x, output=several)
