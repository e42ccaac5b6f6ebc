"""The contract of a Distiller: a loss for anyone's loop, and nothing else changed."""

import contextlib
import copy
import io
import math
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.compress.distillation.distiller import Distiller
from featherpress.compress.distillation.teachers import TeacherOutputs
from featherpress.compress.distillation.terms import Features, Logits
from featherpress.errors import UsageError

from .conftest import Net, distil, draw, make_net, take


def by_hand(student: Net, teacher: Net, adapter: nn.Module, x: Tensor) -> Tensor:
    """Compute kl + 2 pkd as anyone would write it."""
    caught: dict[str, Tensor] = {}
    for name, model in (("s", student), ("t", teacher)):
        model.two.register_forward_hook(lambda _m, _i, out, name=name: caught.__setitem__(name, out))
    with torch.no_grad():
        theirs = teacher(x)
    ours = student(x)
    kl = F.kl_div((ours / 4).log_softmax(1), (theirs / 4).softmax(1), reduction="batchmean") * 16
    s, t = adapter(caught["s"]), caught["t"]
    # 1e-6 and 1e-12 keep a channel that hardly varies from exploding.
    spreads = ((m.var((0, 2, 3), correction=0, keepdim=True) + eps).sqrt() for m, eps in ((s, 1e-6), (t, 1e-12)))
    s, t = ((m - m.mean((0, 2, 3), keepdim=True)) / spread for m, spread in zip((s, t), spreads, strict=True))
    loss: Tensor = kl + 2 * (s - t).square().mean() / 2
    return loss


def test_loss_and_gradients_are_those_written_by_hand(student: Net) -> None:
    """`step.loss` is kl + 2 pkd: same value, same gradients of student and adapter, which its own seed drew."""
    teacher, other, x = make_net(6, seed=2), copy.deepcopy(student), draw()
    kd = distil(student, copy.deepcopy(teacher), seed=3)
    torch.manual_seed(3)
    adapter = nn.Conv2d(4, 6, 1)
    expected, found = by_hand(other, teacher, adapter, x), take(kd, student, x)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    expected.backward()
    found.backward()
    pairs = zip([*student.parameters(), *kd.parameters()], [*other.parameters(), *adapter.parameters()], strict=True)
    for ours, theirs in pairs:
        torch.testing.assert_close(ours.grad, theirs.grad, atol=5e-6, rtol=1e-4)


def test_parts_are_the_weighted_terms(student: Net) -> None:
    """`parts` add up to the loss, carry no gradient, and double with a term's weight."""
    sums = []
    for weight in (1, 2):
        kd, x = distil(student, terms={"keys": Logits("kl", weight=weight), "a.b": Logits("dist")}), draw()
        with kd.step(x) as step:
            out = student(x)
        torch.testing.assert_close(step.loss(out), step.parts["keys"] + step.parts["a.b"])
        assert not step.parts["keys"].requires_grad
        sums.append(step.parts["keys"].item())
    assert sums[1] == pytest.approx(2 * sums[0])


def test_student_stays_as_it_is(student: Net) -> None:
    """Keys, class, attributes, modes, gradients and random state are what they were before."""
    student.two.eval()
    before, state = dict(vars(student)), {key: value.clone() for key, value in student.state_dict().items()}
    torch.manual_seed(5)
    random = torch.get_rng_state()
    kd = distil(student)
    assert torch.equal(torch.get_rng_state(), random)
    take(kd, student)
    assert (type(student), vars(student)) == (Net, before)
    assert (student.training, student.one.training, student.two.training) == (True, True, False)
    assert list(student.state_dict()) == list(state)
    assert all(torch.equal(value, state[key]) for key, value in student.state_dict().items())
    assert all(weight.grad is None for weight in student.parameters())


def test_statistics_are_not_touched_by_the_example() -> None:
    """The example runs in eval mode: BatchNorm's averages stay."""
    student = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))
    distil(student, make_net(6), {"map": Features("pkd", student="1", teacher="two")})
    assert student[1].num_batches_tracked == 0
    assert student[1].training


def test_hooks_do_nothing_outside_a_step(student: Net) -> None:
    """Between steps nothing is kept, and after `close` no hook is left on either model."""
    teacher = make_net(6)
    with distil(student, teacher) as kd:
        take(kd, student)
        student(draw())
        teacher(draw())
        taps = [*kd.taps.values(), *kd.teachers["teacher"].taps.values()]
        assert len(taps) == 2
        assert all(tap.missing == list(tap.modules) for tap in taps)
        assert student.two._forward_hooks
    assert not any(module._forward_hooks for model in (student, teacher) for module in model.modules())


@pytest.mark.parametrize("way", ["deepcopy", "pickle", "torch.save", "average"])
def test_copies_run_without_hooks(student: Net, way: str) -> None:
    """A copy made inside a step gives the same outputs there, keeps nothing, and nothing of it is caught."""
    kd, file, x = distil(student), io.BytesIO(), draw()
    copied: Any
    with kd.step(x) as step:
        if way == "deepcopy":
            copied = copy.deepcopy(student)
        elif way == "pickle":
            copied = pickle.loads(pickle.dumps(student))  # noqa: S301 (made here)
        elif way == "average":
            copied = torch.optim.swa_utils.AveragedModel(student)
        else:
            torch.save(student, file)
            file.seek(0)
            copied = torch.load(file, weights_only=False)
        assert torch.equal(copied(x), student(x))
    hooks = [hook for module in copied.modules() for hook in module._forward_hooks.values()]
    assert not any(getattr(hook, "caught", None) for hook in hooks)
    assert len(step.levels["map"]) == 1
    with pytest.raises(UsageError, match="no tap caught anything"):
        take(kd, copied)


@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps], ids=["copy", "deepcopy", "pickle"])
def test_a_distiller_is_not_copied(student: Net, way: Callable[[Distiller], object]) -> None:
    """A copy would have no hooks, so that the first sentence says what to do instead."""
    kd = distil(student)
    with pytest.raises(UsageError, match=r"a Distiller cannot be copied or pickled: .* `state_dict\(\)`"):
        way(kd)
    take(kd, student).backward()


def test_adapters_alone_are_parameters(student: Net) -> None:
    """`parameters` are one 1x1 convolution from 4 to 6 channels, in float32, which learn."""
    kd = distil(student.bfloat16(), example=draw().bfloat16())
    assert [tuple(weight.shape) for weight in kd.parameters()] == [(6, 4, 1, 1), (6,)]
    assert all(weight.dtype == torch.float32 for _, weight in kd.named_parameters())
    take(kd, student, draw().bfloat16()).backward()
    assert next(kd.parameters()).grad is not None


def test_train_does_not_reach_the_teacher(student: Net) -> None:
    """Whoever calls `train`, the teacher answers in eval mode and without gradient."""
    teacher = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.Dropout(0.5), nn.Flatten(), nn.Linear(216, 5))
    kd = distil(student, teacher, {"class": Logits("kl")})
    first = take(kd, student)
    teacher.train()
    assert torch.equal(take(kd, student), first)
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert teacher[1].num_batches_tracked == 0


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_teacher_keeps_its_precision(student: Net, dtype: torch.dtype) -> None:
    """Inputs are cast for the teacher; the loss is float32."""
    teacher = make_net(6).to(dtype)
    assert take(distil(student, teacher), student).dtype == torch.float32
    assert teacher.one.weight.dtype == dtype


def test_shared_modules_of_teacher_and_student_are_refused(student: Net) -> None:
    """A teacher that is the student, or has a layer of it, would learn."""
    teacher = make_net()
    teacher.head = student.head
    for shared in (student, teacher):
        with pytest.raises(UsageError, match=r"share modules or weights.*copy"):
            distil(student, shared)
    assert all(weight.requires_grad for weight in student.parameters())
    assert student.training


def test_teachers_may_learn_again(student: Net) -> None:
    """Closed, or refused, a Distiller leaves weights of a teacher learning as they did; closed again, as they are."""
    teacher = make_net(6)
    teacher.two.requires_grad_(False)
    before = [weight.requires_grad for weight in teacher.parameters()]
    kd = distil(student, teacher)
    assert not any(weight.requires_grad for weight in teacher.parameters())
    kd.close()
    assert [weight.requires_grad for weight in teacher.parameters()] == before
    with pytest.raises(UsageError, match="has no module"):
        distil(student, teacher, {"map": Features("pkd", student="three", teacher="two")})
    assert [weight.requires_grad for weight in teacher.parameters()] == before
    with torch.inference_mode():
        fixed = make_net(6)
    distil(student, fixed).close()
    teacher.requires_grad_(False)
    kd.close()
    assert not any(weight.requires_grad for weight in teacher.parameters())


def test_loss_is_taken_once_and_after_the_block(student: Net) -> None:
    """Inside the block there is no loss yet, and a second one is refused."""
    kd, x = distil(student), draw()
    with kd.step(x) as step:
        out = student(x)
        with pytest.raises(UsageError, match="after its `with` block"):
            step.loss(out)
    step.loss(out)
    with pytest.raises(UsageError, match="one loss"):
        step.loss(out)


def test_steps_do_not_nest(student: Net) -> None:
    """A step inside a step is refused, whenever it was begun."""
    kd = distil(student)
    early = kd.step(draw())
    with kd.step(draw()):
        with pytest.raises(UsageError, match="do not nest"):
            kd.step(draw())
        with pytest.raises(UsageError, match="do not nest"), early:
            pass
        student(draw())


def test_exception_leaves_the_gate_closed(student: Net) -> None:
    """After an error inside a step nothing is caught, the step has no loss and does not count, and the next works."""
    kd = distil(student)
    step = kd.step(draw())
    with contextlib.suppress(ZeroDivisionError), step:
        student(draw())
        raise ZeroDivisionError
    student(draw())
    assert all(not caught for tap in kd.taps.values() for caught in tap._caught.values())
    with pytest.raises(UsageError, match="after its `with` block"):
        step.loss(student(draw()))
    take(kd, student).backward()
    assert "every one of 1 steps had a loss" in kd.verify()


def test_second_forward_in_a_step_is_refused(student: Net) -> None:
    """Two forwards would give twice the levels; the step after works."""
    kd = distil(student)
    with pytest.raises(UsageError, match=r"caught 2 levels.*one forward"), kd.step(draw()):
        _ = [student(draw()) for _ in range(2)]
    take(kd, student)


def test_two_distillers_share_a_student(student: Net) -> None:
    """Both see the same forward, and neither needs the other."""
    one, two, x = distil(student), distil(student, make_net(5, seed=4)), draw()
    alone = take(one, student), take(two, student)
    with one.step(x) as first, two.step(x) as second:
        out = student(x)
    assert torch.equal(first.loss(out), alone[0])
    assert torch.equal(second.loss(out), alone[1])
    one.close()
    assert torch.equal(take(two, student), alone[1])


def test_features_need_no_outputs(student: Net) -> None:
    """Features alone are distilled without what the student returned; terms on outputs ask for it."""
    kd, x = distil(student, terms={"map": Features("pkd", student="two", teacher="two")}), draw()
    with kd.step(x) as step:
        student(x)
    assert step.loss().requires_grad
    with distil(student).step(x) as step:
        student(x)
    with pytest.raises(UsageError, match="class compares outputs"):
        step.loss()


@pytest.mark.parametrize("inference", [False, True])
def test_outputs_computed_before(student: Net, inference: bool) -> None:
    """`teacher_outputs` takes the place of the teacher, which does not run; inference tensors are no trouble."""
    teacher, x = make_net(6, seed=2), draw()
    kd = distil(student, teacher, {"map": Features("fitnets", student="two", teacher="two"), "class": Logits("kl")})
    expected = take(kd, student)
    with torch.inference_mode(inference):
        said = kd.teachers["teacher"].ask(x)
        said = said.filled([each.clone() for each in said.tensors()])
    teacher.register_forward_pre_hook(lambda *_: pytest.fail("the teacher ran"))
    for given in (said, {"teacher": said}):
        found = take(kd, student, teacher_outputs=given)
        found.backward()
        torch.testing.assert_close(found, expected)
    with kd.step(teacher_outputs=said):
        student(x)


def test_outputs_computed_before_get_no_gradient(student: Net) -> None:
    """Not from a loss of one's own either, which leaves that to the Distiller."""
    teacher, x = make_net(6), draw()
    kd = distil(student, terms={"class": Logits(nn.MSELoss())})
    take(kd, student, x, teacher_outputs=teacher(x)).backward()
    assert student.head.weight.grad is not None
    assert teacher.head.weight.grad is None


def test_outputs_computed_before_are_checked(student: Net) -> None:
    """Another batch, features that are missing, and a teacher that is not there are named."""
    kd = distil(student)
    logits = distil(student, terms={"class": Logits("kl")})
    assert take(logits, student, teacher_outputs=draw(4, 5)).isfinite()
    with pytest.raises(UsageError, match=r"\(4, 5\).*\(3, 5\)"):
        take(logits, student, teacher_outputs=draw(3, 5))
    with pytest.raises(UsageError, match="no features 'two'"):
        take(kd, student, teacher_outputs=draw(4, 5))
    with pytest.raises(UsageError, match="'who'; the teachers are teacher"):
        take(kd, student, teacher_outputs={"who": draw(4, 5)})
    short = TeacherOutputs(outputs={"logits": draw(4, 5)}, features={"two": [draw(3, 6, 6, 6)]})
    with pytest.raises(UsageError, match="4 examples, the teacher 3"):
        take(kd, student, teacher_outputs=short)
    with pytest.raises(UsageError, match="needs the inputs"):
        kd.step()


def train(kd: Distiller, student: Net, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        x, y = draw(seed=step), torch.arange(4)
        with kd.step(x) as taken:
            out = student(x)
        task = F.cross_entropy(out, y)
        (task + taken.loss(out, task=task, labels=y)).backward()
        optimizer.step()
        optimizer.zero_grad()


def test_resumes_bit_for_bit() -> None:
    """Twenty-two steps, and eleven with a new Distiller that goes on for eleven, end with the same weights."""
    terms = {
        "class": Logits("dkd"),
        "map": Features("mgd", student="two", teacher="two"),
        "first": Features("pkd", student="one", teacher="one"),
    }

    def start(seed: int) -> tuple[Net, Distiller, torch.optim.Optimizer]:
        student = make_net()
        kd = distil(student, terms=terms, balance=0.4, seed=seed)
        return student, kd, torch.optim.AdamW([*student.parameters(), *kd.parameters()], lr=1e-2)

    whole, kd, optimizer = start(0)
    train(kd, whole, optimizer, range(22))
    half, first, before = start(0)
    train(first, half, before, range(11))
    saved = io.BytesIO()
    torch.save({"kd": first.state_dict(), "optimizer": before.state_dict(), "student": half.state_dict()}, saved)
    saved.seek(0)
    state = torch.load(saved, weights_only=True)
    resumed, second, after = start(9)
    resumed.load_state_dict(state["student"])
    second.load_state_dict(state["kd"])
    after.load_state_dict(state["optimizer"])
    train(second, resumed, after, range(11, 22))
    for ours, theirs in ((resumed, whole), (second.adapters, kd.adapters)):
        assert all(torch.equal(value, theirs.state_dict()[key]) for key, value in ours.state_dict().items())


def leveled(*weights: float) -> Any:
    return {"map": Features("pkd", student=["one", "two"], teacher=["one", "two"], levels=weights)}


@pytest.mark.parametrize(
    ("keywords", "sentence"),
    [
        ({"order": "random"}, "`order` is mean or sequential"),
        ({"ramp": 1.5}, "`ramp` is a fraction"),
        ({"stop": -0.1}, "`stop` is a fraction"),
        ({"balance": 0}, "`balance` is a share above 0"),
        ({"placebo": "sugar"}, "shuffled or smoothing, got 'sugar'"),
        ({"teacher_inputs": {"who": abs}}, "`teacher_inputs` has 'who'"),
        ({"teacher_weights": {"teacher": 0.0}}, "above 0 for teacher"),
        ({"teacher_weights": {"teacher": math.inf}}, "above 0 for teacher"),
        ({"teacher_weights": {"who": 1.0}}, "above 0 for teacher"),
        ({"terms": leveled(0, 0)}, "map: `levels` has .*not all 0"),
        ({"terms": leveled(2, -1)}, "map: `levels` has .*0 or more"),
        ({"terms": leveled(1, math.nan)}, "map: `levels` has .*finite"),
        ({"terms": leveled(1, math.inf)}, "map: `levels` has .*finite"),
        ({"teacher": {}}, "expected a teacher"),
        ({"terms": {"x": Logits("kl", of="who")}}, "no teacher is named 'who'"),
        ({"terms": {}}, "expected a term"),
        ({"terms": {"x": Features("pkd", student="neck", teacher="two")}}, "no module 'neck' to tap"),
        ({"terms": {"x": Features("pkd", student="two", teacher={"who": "two"})}}, "no path for teacher"),
    ],
)
def test_settings_are_checked(student: Net, keywords: dict[str, Any], sentence: str) -> None:
    """What no training could run by is refused at construction, and leaves no hook."""
    with pytest.raises(UsageError, match=sentence):
        distil(student, **keywords)
    assert not any(module._forward_hooks for module in student.modules())
