"""What goes wrong with distillation elsewhere, provoked here: impossible, refused, or found by `verify`."""

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel

from featherpress.compress.distillation.comparing import kept_positions
from featherpress.compress.distillation.distiller import Distiller
from featherpress.compress.distillation.losses.registry import find_loss, list_losses
from featherpress.compress.distillation.terms import Features, Logits
from featherpress.errors import TrainingError, UsageError

from .conftest import Net, distil, draw, make_net, take

LABELS = torch.arange(4)


def backward(kd: Distiller, student: nn.Module) -> None:
    take(kd, student).backward()


def held(kd: Distiller, *models: nn.Module) -> torch.optim.Optimizer:
    weights = [weight for model in models for weight in model.parameters()]
    return torch.optim.SGD([*weights, *kd.parameters()], lr=0.1)


def test_a_sound_loop_passes(student: Net) -> None:
    """`verify` returns what it checked, and that pkd compares over a batch; after `zero_grad` too."""
    kd = distil(student)
    optimizer = held(kd, student)
    backward(kd, student)
    optimizer.step()
    optimizer.zero_grad()
    checks = kd.verify(optimizer)
    assert checks[:-1] == [
        "every one of 1 steps had a loss",
        "the teachers are as they were",
        "the tapped modules are in their places",
        "the optimizer holds the student, every adapter and no teacher",
        "no weight or gradient is infinite or not a number",
        "gradients have reached every adapter",
    ]
    assert "map: pkd" in checks[-1]
    assert len(kd.verify()) == 5


@pytest.mark.parametrize("wrap", [False, True])
def test_1_hooks_fire_under_parallel_training(student: Net, wrap: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Hooks are on module objects: a wrapper put on before or after prefixes no name that matters."""

    class Wrapper(DistributedDataParallel):
        def __init__(self, module: nn.Module) -> None:
            nn.Module.__init__(self)
            self.module = module

        def forward(self, *inputs: Any) -> Any:
            return self.module(*inputs)

    expected = take(distil(student), student)
    wrapped = Wrapper(student)
    assert take(distil(wrapped if wrap else student), wrapped).item() == expected.item()


def test_1_tap_that_caught_nothing_is_an_error(student: Net) -> None:
    """A loss is never silently 0: a step in which the student, or one tapped module, did not run raises."""
    terms = {name: Features("pkd", student=name, teacher=name) for name in ("one", "two")}
    kd = distil(student, terms=terms)
    with pytest.raises(UsageError, match="no tap caught anything"), kd.step(draw()):
        pass
    with pytest.raises(UsageError, match="tap on 'two' caught nothing"), kd.step(draw()):
        student.one(draw())


def test_2_projector_in_no_optimizer(student: Net) -> None:
    """Adapters that nobody trains are named, with what to add."""
    kd = distil(student)
    backward(kd, student)
    with pytest.raises(TrainingError, match=r"adapter kd_0_map.* is in no optimizer; add kd.parameters\(\)"):
        kd.verify(torch.optim.SGD(student.parameters(), lr=0.1))


@pytest.mark.parametrize("frozen", [False, True])
def test_2_student_in_no_optimizer(student: Net, frozen: bool) -> None:
    """An optimizer of another copy of the model, and a student that is frozen, are noticed: nothing would be learnt."""
    kd = distil(student, terms={"it": Logits("kl")})
    backward(kd, student)
    student.requires_grad_(not frozen)
    with pytest.raises(TrainingError, match="no weight of the student that is trained is in the optimizer"):
        kd.verify(held(kd, student if frozen else make_net(3)))


def test_2_projector_that_no_gradient_reaches(student: Net) -> None:
    """A loss that was left out of the backward is noticed by what did not arrive."""
    kd, x = distil(student), draw()
    with kd.step(x) as step:
        out = student(x)
    step.loss(out)
    F.cross_entropy(out, LABELS).backward()
    with pytest.raises(TrainingError, match="no gradient has reached the adapter kd_0_map"):
        kd.verify()


@pytest.mark.parametrize("way", ["left out", "a number", "without gradient"])
@pytest.mark.parametrize("term", [Logits("kl"), Features("attention", student="two", teacher="two")])
def test_2_loss_that_does_not_back_up(student: Net, term: Any, way: str) -> None:
    """Without adapters, too, a loss that teaches nothing is noticed."""
    kd, x = distil(student, terms={"it": term}), draw()
    with kd.step(x) as step:
        out = student(x)
    with torch.set_grad_enabled(way != "without gradient"):
        loss: Any = step.loss(out)
    (F.cross_entropy(out, LABELS) + {"left out": 0, "a number": loss.item()}.get(way, loss)).backward()
    with pytest.raises(TrainingError, match="no gradient has come back through"):
        kd.verify(held(kd, student))
    backward(kd, student)
    kd.verify(held(kd, student))


def test_2_outputs_without_gradient_are_refused(student: Net) -> None:
    """Detached, or the teacher's, they would teach nothing; a model that is evaluated has none to give."""
    kd, x = distil(student), draw()
    with kd.step(x) as step:
        out = student(x)
    with pytest.raises(UsageError, match="class: no gradient reaches the student through the outputs"):
        step.loss(out.detach())
    student.eval()
    with torch.no_grad(), kd.step(x) as step:
        out = student(x)
    step.loss(out)


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("parts", [1, 3])
@pytest.mark.parametrize("clears", ["student.zero_grad", "optimizer.zero_grad", "zeros", "before the backward"])
def test_2_projector_whose_gradients_are_never_cleared(student: Net, clears: str, parts: int, fused: bool) -> None:
    """A loop that clears the student's gradients alone adds up the adapters', which is found; accumulation is not."""
    kd = distil(student)
    optimizer = torch.optim.SGD([*student.parameters(), *kd.parameters()], lr=0.1, fused=fused)
    clear: Callable[[], Any] = student.zero_grad if clears == "student.zero_grad" else optimizer.zero_grad
    if clears == "zeros":
        clear = lambda: optimizer.zero_grad(set_to_none=False)  # noqa: E731
    for _ in range(3):
        for part in range(parts):
            loss = take(kd, student)
            if clears == "before the backward" and not part:
                clear()
            loss.backward()
        optimizer.step()
        if clears != "before the backward":
            clear()
    if clears == "student.zero_grad":
        with pytest.raises(TrainingError, match=r"used a gradient of the adapter kd_0_map.* again: clear kd.param"):
            kd.verify(optimizer)
    else:
        kd.verify(optimizer)


def test_2_terms_that_have_not_begun_are_no_fault(student: Net) -> None:
    """The adapter of a term that starts later has got no gradient yet, which is as it should be."""
    late = Features("pkd", student="two", teacher="two", start=0.5)
    kd = distil(student, terms={"class": Logits("kl"), "late": late})
    take(kd, student, at=0.2).backward()
    kd.verify(held(kd, student))
    take(kd, student, at=0.7)
    with pytest.raises(TrainingError, match="kd_0_late"):
        kd.verify()


def test_3_what_is_saved_mid_run_is_the_student(student: Net) -> None:
    """In the middle of a step the state fits a plain model, strictly, and so does the exported program."""
    kd, x = distil(student), draw()
    with kd.step(x) as step:
        student(x)
        state = student.state_dict()
    step.loss(student(x))
    fresh = make_net(seed=9)
    fresh.load_state_dict(state)
    assert torch.equal(fresh(x), student(x))
    program = torch.export.export(student.eval(), (x,))
    torch.testing.assert_close(program.module()(x), student(x))


@pytest.mark.parametrize("way", ["train", "teacher.train", "requires_grad"])
def test_4_train_does_not_reach_the_teacher(student: Net, way: str) -> None:
    """A teacher is no submodule of anything, and its answers have no gradient whatever is called."""
    teacher = nn.Sequential(nn.Conv2d(3, 6, 1), nn.BatchNorm2d(6), nn.ReLU())
    term = Features(nn.MSELoss(), student="two", teacher="2")  # the losses of our own detach the teacher themselves
    kd = distil(student, teacher, {"map": term})
    student.train()
    if way == "teacher.train":
        teacher.train()
    if way == "requires_grad":
        teacher.requires_grad_()
    backward(kd, student)
    assert all(weight.grad is None for weight in teacher.parameters())
    assert torch.equal(teacher[1].running_mean, torch.zeros(6))  # type: ignore[arg-type]
    assert not {id(each) for each in teacher.modules()} & {id(each) for each in student.modules()}
    kd.verify(held(kd, student))


def test_5_divergence_is_not_divided_by_classes() -> None:
    """Of two examples and four classes: odds 3:1 beside two of nearly none, at T = 1, is one hand-worked KL."""
    teacher = torch.tensor([[math.log(3.0), 0.0, -40.0, -40.0]]).repeat(2, 1)
    student = torch.tensor([[0.0, 0.0, -40.0, -40.0]], requires_grad=True).repeat(2, 1)
    kd = distil(nn.Identity(), nn.Conv1d(1, 1, 1), {"class": Logits("kl", temperature=1)}, **IDENTITY)
    found = take(kd, nn.Identity(), student, teacher_outputs=teacher)
    assert found.item() == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-4)


IDENTITY: dict[str, Any] = {
    "example": draw(2, 4),
    "teacher_inputs": lambda x: x[:, None],
    "output": (None, lambda x: x[:, 0]),
}


def test_9_cached_answers_of_another_batch_are_refused(student: Net) -> None:
    """`teacher_outputs` are the user's word, but as many as there are examples."""
    kd = distil(student, terms={"class": Logits("kl")})
    with pytest.raises(UsageError, match=r"\(4, 5\) do not compare with the teacher's \(8, 5\)"):
        take(kd, student, teacher_outputs=draw(8, 5))


@pytest.mark.parametrize(
    "name", [name for name in list_losses() if find_loss(name).layout != "priors" and name != "fgd"]
)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_10_half_precision(name: str, dtype: torch.dtype) -> None:
    """A student in half precision, silent maps included, gives finite losses and gradients through float32 adapters."""
    student = make_net().to(dtype)
    with torch.no_grad():
        for weight in student.two.parameters():
            weight[:2] = 0
    kind = find_loss(name).kind
    term: Any = Logits(name) if kind == "logits" else Features(name, student="two", teacher="two")
    kd, x = distil(student, terms={"it": term}, example=draw().to(dtype)), draw().to(dtype)
    with kd.step(x) as step:
        out = student(x)
    loss = step.loss(out, labels=LABELS)
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss.isfinite()
    assert all(weight.grad.isfinite().all() for weight in student.parameters() if weight.grad is not None)
    kd.verify(held(kd, student))


def bad_root(student: Tensor, teacher: Tensor) -> Tensor:
    """Have value 0 and a gradient that is not a number."""
    return ((student - student.detach()).square().sum() + 0 * teacher.sum()).sqrt()


def test_11_finite_loss_whose_gradient_is_not(student: Net) -> None:
    """A gradient that is not a number is found in the student's weights, and in adapters after `zero_grad` too."""
    kd = distil(student, terms={"class": Logits(bad_root)})
    loss = take(kd, student)
    loss.backward()
    assert loss == 0
    with pytest.raises(TrainingError, match=r"gradient of .* is not finite"):
        kd.verify(held(kd, student))
    kd = distil(student, terms={"map": Features(bad_root, student="two", teacher="two")})
    backward(kd, student)
    optimizer = held(kd, student)
    optimizer.zero_grad()
    with pytest.raises(TrainingError, match=r"gradient of the adapter kd_0_map.* is not finite"):
        kd.verify(optimizer)


def test_11_steps_that_a_scaler_skips(student: Net) -> None:
    """Gradients that overflow at a high scale are no fault where the scaler is named, and one where it is below 1."""
    for scale, sound in ((2.0**127, True), (0.5, False)):
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        kd = distil(student)
        optimizer = held(kd, student)
        before = student.one.weight.clone()
        loss = take(kd, student) * (1 if sound else math.inf)
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call, unused-ignore]
        scaler.step(optimizer)
        assert student.one.weight.equal(before)
        if sound:
            assert "the scaler skips this step" in " ".join(kd.verify(optimizer, scaler=scaler))
        else:
            with pytest.raises(TrainingError, match=r"is not finite$"):
                kd.verify(optimizer, scaler=scaler)
        with pytest.raises(TrainingError, match=r"is not finite; if a GradScaler skips such steps, name it"):
            kd.verify(optimizer)
        scaler.update()
        optimizer.zero_grad()
        kd.close()


def test_11_weights_that_are_not_finite(student: Net) -> None:
    """A teacher that says NaN is found in what the student has become, after `zero_grad` too."""
    teacher = make_net(6)
    torch.nn.init.constant_(teacher.head.bias, math.nan)
    kd = distil(student, teacher, {"class": Logits("kl")})
    optimizer = held(kd, student)
    backward(kd, student)
    optimizer.step()
    optimizer.zero_grad()
    with pytest.raises(TrainingError, match=r"^one\.weight is not finite"):
        kd.verify(optimizer)


def test_12_teacher_is_held_by_nothing(student: Net) -> None:
    """What wraps, moves or saves the student sees no teacher, and the teacher's weights need no gradient."""
    teacher = make_net(6)
    kd = distil(student, teacher)
    assert not any(weight.requires_grad for weight in teacher.parameters())
    assert {id(weight) for weight in kd.parameters()}.isdisjoint(id(weight) for weight in teacher.parameters())
    assert [name for name in kd.state_dict()["adapters"] if not name.startswith("kd_0_map")] == []


@pytest.mark.parametrize(
    ("terms", "sentence"),
    [
        ({"class": Logits("kl")}, r"class: the student's logits \(4, 5\) do not compare with the teacher's \(4, 7\)"),
        ({"map": Features("pkd", student=["one", "two"], teacher="two")}, "student's has 2 levels, the teacher's 1"),
        (
            {"map": Features("pkd", student="two", teacher="two", adapter="none")},
            "student's 4 channels do not compare with the teacher's 6",
        ),
    ],
)
def test_14_what_differs_is_refused_at_construction(student: Net, terms: Any, sentence: str) -> None:
    """Classes, levels and widths are compared before any training, and no hook is left."""
    teacher = make_net(6)
    teacher.head = nn.Linear(6, 7)
    with pytest.raises(UsageError, match=sentence):
        distil(student, teacher, terms)
    assert not any(module._forward_hooks for model in (student, teacher) for module in model.modules())


@pytest.mark.parametrize("whose", ["student", "teacher"])
@pytest.mark.parametrize("loss", ["kl", "dkd", "dist"])
def test_probabilities_in_the_place_of_logits_are_refused(student: Net, loss: str, whose: str) -> None:
    """Taken for logits they are nearly equal for all classes: a model that is sure would look unsure."""
    teacher = make_net(6)
    model = student if whose == "student" else teacher
    model.head = nn.Sequential(model.head, nn.Softmax(dim=1))  # type: ignore[assignment]
    with pytest.raises(UsageError, match=f"class: the {whose}'s logits are probabilities, which sum to 1"):
        distil(student, teacher, {"class": Logits(loss)})
    distil(student, teacher, {"class": Logits(lambda ours, theirs: (ours.softmax(1) - theirs).square().mean())})


def test_15_one_layer_in_two_terms(student: Net) -> None:
    """Both terms of a layer have a value."""
    term = Features("attention", student="two", teacher="two")
    kd, x = distil(student, terms={"a": term, "b": term}), draw()
    with kd.step(x) as step:
        student(x)
    step.loss()
    assert step.parts["a"].item() == step.parts["b"].item() > 0


def test_steps_without_a_loss(student: Net) -> None:
    """Steps whose loss was never taken are counted."""
    kd = distil(student)
    backward(kd, student)
    for _ in range(2):
        with kd.step(draw()):
            student(draw())
    with pytest.raises(TrainingError, match="2 of 3 steps had no loss"):
        kd.verify()


CHANGES: dict[str, Callable[[Net], Any]] = {
    "in place": lambda teacher: teacher.one.weight.add_(1),
    "by an optimizer": lambda teacher: torch.optim.SGD([teacher.one.weight], lr=1, foreach=False).step(),
    "loaded": lambda teacher: teacher.load_state_dict(make_net(6, seed=8).state_dict()),
    "replaced": lambda teacher: setattr(teacher, "one", nn.Conv2d(3, 6, 3, padding=1)),
}


@pytest.mark.parametrize("way", CHANGES)
def test_teacher_that_changed(student: Net, way: str) -> None:
    """A teacher must stay as it is, unless it was said to move."""
    for moves in (False, True):
        teacher = make_net(6)
        kd = distil(student, teacher, {"class": Logits("kl")}, teacher_moves=moves)
        backward(kd, student)
        if way == "by an optimizer":
            teacher.one.weight.grad = torch.ones_like(teacher.one.weight)
        with torch.no_grad():
            CHANGES[way](teacher)
        if moves:
            kd.verify()
        else:
            with pytest.raises(TrainingError, match="weights or buffers of teacher have changed"):
                kd.verify()


class Growing(Net):
    """Keeps the positions of the longest input so far, as rotary embeddings do."""

    def forward(self, x: Tensor) -> Tensor:
        self.register_buffer("positions", torch.arange(len(x)), persistent=False)
        return super().forward(x)


def test_what_a_teacher_does_not_save_may_change(student: Net) -> None:
    """Buffers that are caches are no part of what it knows."""
    kd = distil(student, Growing(6))
    take(kd, student, draw(7, 3, 6, 6)).backward()
    kd.verify(held(kd, student))


def test_teacher_in_the_optimizer(student: Net) -> None:
    """Weights of a teacher in the optimizer are found before they move."""
    teacher = make_net(6)
    kd = distil(student, teacher)
    backward(kd, student)
    with pytest.raises(TrainingError, match="weights of teacher are in the optimizer"):
        kd.verify(held(kd, student, teacher))


@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_replaced_modules(student: Net, whose: str) -> None:
    """A tapped module that was put in after the Distiller was made has no hook."""
    teacher = make_net(6)
    kd = distil(student, teacher, teacher_moves=True)
    backward(kd, student)
    model = student if whose == "student" else teacher
    model.two = nn.Conv2d(model.two.in_channels, model.two.out_channels, 3, padding=1)
    with pytest.raises(TrainingError, match=r"'two' was replaced"):
        kd.verify()


class InPlace(nn.Module):
    """Changes what its tapped layer returned: in place, or not."""

    def __init__(self, inplace: bool, width: int = 4) -> None:
        super().__init__()
        self.net = make_net(width)
        self.relu = nn.ReLU(inplace=inplace)
        self.hidden = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        (x,) = self.hidden([self.net.two(self.net.one(x))])
        return self.net.head(self.relu(x).mean(dim=(2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("path", ["net.two", "hidden"])
@pytest.mark.parametrize("whose", ["student", "teacher"])
def test_tap_before_an_inplace_layer(path: str, whose: str) -> None:
    """A tap gives what the module returned, not what a ReLU made of it later; the gradient is the same as well."""
    gradients = []
    for inplace in (False, True):
        pair = InPlace(inplace and whose == "student"), InPlace(inplace and whose == "teacher", 6)
        kd = distil(*pair, {"map": Features("fitnets", student=path, teacher=path)})
        loss = take(kd, pair[0])
        loss.backward()
        gradients.append([loss.detach(), pair[0].net.one.weight.grad, *(each.grad for each in kd.parameters())])
    torch.testing.assert_close(gradients[1], gradients[0])


def test_module_that_runs_with_one_output_kept_and_one_changed() -> None:
    """Levels that nothing changes are not copied: the tap holds the very tensor that went on."""
    model = InPlace(inplace=False)
    kd = distil(model, make_net(6), {"map": Features("pkd", student="net.two", teacher="two")})
    seen: list[Tensor] = []
    handle = model.net.two.register_forward_hook(lambda _m, _i, out: seen.append(out))
    with kd.step(draw()) as step:
        model(draw())
    handle.remove()
    assert step.levels["map"][0] is seen[0]


def test_terms_may_be_called_as_anything(student: Net) -> None:
    """Names that are methods of containers of modules, or have dots, are names like others."""
    names = ["keys", "items", "forward", "training", "a.b", "", "a/b"]
    term = Features("fitnets", student="two", teacher="two")
    kd = distil(student, terms=dict.fromkeys(names, term))
    backward(kd, student)
    assert len(list(kd.parameters())) == 2 * len(names)
    kd.load_state_dict(kd.state_dict())


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")
def test_frozen_layer_is_refused(student: Net) -> None:
    """A tap on layers that do not learn teaches nothing."""
    student.one.requires_grad_(False)
    student.two.requires_grad_(False)
    with pytest.raises(UsageError, match="map: no gradient reaches the student through 'two': it is frozen"):
        take(distil(student), student)


@pytest.mark.parametrize(
    ("terms", "said"),
    [
        ([Logits("kl")], r"terms have names: .* got list"),
        (Logits("kl"), r"terms have names: .* got Logits"),
        ({"it": "kl"}, r"it: expected Logits\(\.\.\.\) or Features\(\.\.\.\), got 'kl'"),
    ],
)
def test_terms_of_another_kind_are_refused(student: Net, terms: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        distil(student, terms=terms)


def test_a_closed_distiller_takes_no_steps(student: Net) -> None:
    kd = distil(student)
    kd.close()
    with pytest.raises(UsageError, match="this Distiller is closed"):
        kd.step(draw())


def test_labels_of_other_places_are_refused() -> None:
    """As many in another order would be taken for others, and what is to be ignored would count."""
    logits, labels = torch.randn(2, 5, 3), torch.randint(5, (3, 2))
    dkd = find_loss("dkd").function
    with pytest.raises(UsageError, match=r"the number of a class at \(2, 3\), got labels of \(3, 2\)"):
        dkd(logits, logits, labels=labels)
    term = Logits("kl")
    with pytest.raises(UsageError, match=r"labels of \(2, 6\) do not fit logits of \(2, 5, 3\)"):
        kept_positions(term, logits, {"labels": torch.full((2, 6), -100)})
    with pytest.raises(UsageError, match=r"labels of \(2, 5\) do not fit .*whose classes lie on axis 1"):
        kept_positions(term, logits, {"labels": torch.zeros(2, 5)})
    assert kept_positions(Logits(nn.MSELoss()), logits, {"labels": torch.zeros(2, 5)}) is None
    assert kept_positions(term, logits, {"labels": torch.zeros(2, 6)}) is None
    assert kept_positions(term, logits[..., 0], {"labels": torch.full((2, 6), -100)}) is None
