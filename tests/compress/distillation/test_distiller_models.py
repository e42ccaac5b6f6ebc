"""Any model, whatever it takes, returns, and is wrapped in."""

import copy
from collections import OrderedDict, UserDict
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from featherpress.compress.distillation.distiller import Distiller, unwrap
from featherpress.compress.distillation.terms import Features, Logits
from featherpress.errors import UsageError

from .conftest import Net, distil, draw, make_net, take

MAP = {"map": Features("pkd", student="two", teacher="two")}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_compiled_before_or_after(student: Net, backend: str) -> None:
    """A student compiled after the Distiller was made, or before but not run, gives the loss and gradients of none."""
    torch._dynamo.reset()
    plain = copy.deepcopy(student)
    expected = take(distil(plain), plain)
    expected.backward()
    after = distil(student)
    compiled: Any = torch.compile(student, backend=backend)
    before = distil(compiled)
    for kd in (after, before):
        student.zero_grad()
        found = take(kd, compiled)
        found.backward()
        torch.testing.assert_close(found, expected)
        torch.testing.assert_close(student.two.weight.grad, plain.two.weight.grad)
    torch._dynamo.reset()


@pytest.mark.parametrize("way", ["wrapped", "in place", "built-in class", "another of its class"])
def test_ran_compiled_is_refused(way: str) -> None:
    """Compiled code sees no new hooks: neither its own model's, nor those of another model of the class."""
    torch._dynamo.reset()
    make: Any = (lambda: nn.Sequential(OrderedDict(two=nn.Conv2d(3, 4, 1)))) if way == "built-in class" else make_net
    student: Any = make()
    ran: Any = make() if way == "another of its class" else student
    for model in {ran, student}:
        if way == "in place":
            model.compile(backend="eager")
    if way != "in place":
        ran, student = (torch.compile(model, backend="eager") for model in (ran, student))
    ran(draw())
    with pytest.raises(UsageError, match=r"run compiled already.*torch.compiler.reset"):
        distil(student, terms=MAP)
    torch._dynamo.reset()
    assert take(distil(student, terms=MAP), student).isfinite()
    torch._dynamo.reset()


def test_ran_compiled_inside_a_wrapper_is_refused(student: Net) -> None:
    """A compiled student inside DDP is found there."""
    torch._dynamo.reset()
    student.compile(backend="eager")
    student(draw())
    wrapped: Any = nn.parallel.DistributedDataParallel.__new__(nn.parallel.DistributedDataParallel)
    nn.Module.__init__(wrapped)
    wrapped.module = student
    with pytest.raises(UsageError, match="run compiled already"):
        distil(wrapped, terms=MAP)
    torch._dynamo.reset()


def test_ran_compiled_elsewhere_is_an_error_at_the_step(student: Net) -> None:
    """Where the Distiller has not seen what runs compiled, its first step says that no hook fired."""
    torch._dynamo.reset()
    compiled = torch.compile(student, backend="eager")
    compiled(draw())
    kd = distil(student)
    with pytest.raises(UsageError, match=r"no tap caught anything.*before the first compiled call"):
        take(kd, compiled)
    torch._dynamo.reset()


@pytest.mark.parametrize("terms", [MAP, {"class": Logits("kl")}])
@pytest.mark.parametrize("ran", [False, True])
def test_compiled_teacher_runs_compiled(student: Net, terms: Any, ran: bool) -> None:
    """In steps, with the answers of the plain one; one that is tapped and ran before runs plain."""
    torch._dynamo.reset()
    graphs: list[int] = []

    def backend(graph: Any, _inputs: Any) -> Any:
        return lambda *inputs: graphs.append(1) or graph.forward(*inputs)

    teacher = make_net(6, seed=2)
    compiled: Any = torch.compile(copy.deepcopy(teacher), backend=backend)
    if ran:
        compiled.eval().requires_grad_(False)
        with torch.no_grad():
            compiled(draw())
    expected = take(distil(student, teacher, terms), student)
    kd = distil(student, compiled, terms)
    graphs.clear()
    loss = take(kd, student)
    loss.backward()
    torch.testing.assert_close(loss, expected)
    assert bool(graphs) is not (ran and terms is MAP)
    kd.verify()
    torch._dynamo.reset()


def test_data_parallel_is_refused(student: Net) -> None:
    """Its copies have no hooks."""
    with pytest.raises(UsageError, match="DataParallel"):
        distil(nn.DataParallel(student))
    assert unwrap(torch.compile(student, backend="eager")) is student  # type: ignore[arg-type]


def test_autocast(student: Net) -> None:
    """Under bf16 autocast the loss is computed in float32, wherever it is taken."""
    kd, x = distil(student), draw()
    said = kd.teachers["teacher"].ask(x)
    losses = []
    for inside in (True, False):
        with torch.autocast("cpu", torch.bfloat16):
            with kd.step(x, teacher_outputs=said) as step:
                out = student(x)
            with torch.autocast("cpu", enabled=inside):
                losses.append(step.loss(out))
    losses[0].backward()
    assert out.dtype == torch.bfloat16
    assert losses[0].dtype == torch.float32
    assert losses[0].item() == losses[1].item()
    assert take(kd, student).item() == pytest.approx(losses[0].item(), rel=2e-2)


def gradient(kd: Distiller, student: nn.Module, x: Tensor, parts: int) -> Tensor:
    kd.adapters.zero_grad()
    student.zero_grad()
    for each in x.chunk(parts):
        (take(kd, student, each) / parts).backward()
    return torch.cat([weight.grad.flatten() for weight in student.parameters() if weight.grad is not None])


@pytest.mark.parametrize("parts", [2, 4, 8])
def test_accumulation_is_exact_for_losses_by_example(student: Net, parts: int) -> None:
    """Micro-batches give the gradient of the batch, to the last bits."""
    terms = {
        "class": Logits("kl"),
        "map": Features("fitnets", student="two", teacher="two"),
        "attention": Features("attention", student="one", teacher="one"),
    }
    kd, x = distil(student, terms=terms), draw(8, 3, 6, 6)
    torch.testing.assert_close(gradient(kd, student, x, parts), gradient(kd, student, x, 1), atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("term", [MAP["map"], Features("rkd", student="two", teacher="two"), Logits("dist")])
def test_losses_over_the_batch_say_so(student: Net, term: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Their gradient is another one when accumulated, which is said at construction, and by `verify`."""
    kd, x = distil(student, terms={"it": term}), draw(8, 3, 6, 6)
    (said,) = [record.getMessage() for record in caplog.records]
    assert said.startswith(f"it: {term.entry.name} compares over a whole batch")
    assert kd.verify()[-1] == said
    one, four = gradient(kd, student, x, 1), gradient(kd, student, x, 4)
    assert (one - four).norm() > 0.05 * one.norm()
    assert not any("whole batch" in each for each in distil(student, terms={"it": Logits("kl")}).verify())


class Checkpointed(Net):
    """Recomputes its second layer, which is tapped, in the backward."""

    def __init__(self, *, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = checkpoint(lambda each: self.two(each.relu()).relu(), self.one(x), use_reentrant=self.reentrant)
        return self.head(x.mean(dim=(2, 3)))  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # the example runs without gradient
def test_checkpointing(student: Net) -> None:
    """A tap inside a non-reentrant checkpoint gives the gradient of none; inside a reentrant one it is refused."""
    checkpointed = Checkpointed(reentrant=False)
    checkpointed.load_state_dict(student.state_dict())
    kd = distil(checkpointed)
    torch.testing.assert_close(gradient(kd, checkpointed, draw(), 1), gradient(distil(student), student, draw(), 1))
    assert all(not caught for tap in kd.taps.values() for caught in tap._caught.values())
    checkpointed.reentrant = True
    with pytest.raises(UsageError, match=r"map: no gradient reaches.*'two'.*use_reentrant=False"):
        take(kd, checkpointed)
    beside = distil(checkpointed, terms={"map": Features("pkd", student="one", teacher="one")})
    take(beside, checkpointed).backward()
    with torch.no_grad():
        assert take(kd, checkpointed).isfinite()


def test_channels_last(student: Net) -> None:
    """The layout of memory changes nothing but the last bits."""
    expected = gradient(distil(student), student, draw(), 1)
    student.to(memory_format=torch.channels_last)
    found = gradient(distil(student), student, draw().contiguous(memory_format=torch.channels_last), 1)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-4)


class Repeated(nn.Module):
    """Runs one layer three times; it has two names."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 3, padding=1)
        self.again = self.body

    def forward(self, x: Tensor) -> list[Tensor]:
        x = self.body(self.stem(x))
        levels = [x, F.max_pool2d(x, 2)]
        return [self.again(each) for each in levels]


@pytest.mark.parametrize("path", ["body", "again", ["body", "again"]])
def test_module_that_runs_several_times(path: Any) -> None:
    """Every run is a level, by whichever name of a shared module; levels are averaged by the weights `levels`."""
    student, teacher, x = Repeated(), copy.deepcopy(Repeated()), draw()
    student.body.load_state_dict({"weight": torch.zeros(4, 4, 3, 3), "bias": torch.zeros(4)})
    teacher.body.load_state_dict({"weight": torch.zeros(4, 4, 3, 3), "bias": torch.ones(4)})
    # 0 against 1 differs by 1 at every level; another weight for the first changes nothing, but a mean of 3 would.
    for levels in ((), (2.0, 1.0, 1.0)):
        term = Features("fitnets", student=path, teacher="body", adapter="none", levels=levels)
        kd = distil(student, teacher, {"map": term})
        with kd.step(x) as step:
            student(x)
        assert len(step.levels["map"]) == 3
        assert step.loss().item() == pytest.approx(1)
    with pytest.raises(UsageError, match="`levels` has 2 weights, expected 3"):
        distil(student, teacher, {"map": Features("pkd", student=path, teacher="body", levels=(1, 1))})


def test_levels_are_weighed(student: Net) -> None:
    """With weights 3 and 1 the loss is three quarters of the first level's and one of the second's."""

    def loss(path: Any, levels: Any = ()) -> float:
        term = Features("attention", student=path, teacher=path, levels=levels)
        return take(distil(student, terms={"map": term}), student).item()

    assert loss(["two", "one"], (3, 1)) == pytest.approx(0.75 * loss("one") + 0.25 * loss("two"))  # the model's order
    assert loss(["one", "two"]) == pytest.approx((loss("one") + loss("two")) / 2)
    assert loss("*e", ()) == pytest.approx(loss("one"))


def test_layer_in_two_terms(student: Net) -> None:
    """Each term has its own adapter and its own value, that of the term alone."""
    terms = {"a": MAP["map"], "b": Features("fitnets", student="two", teacher="two", adapter="auto"), "c": MAP["map"]}
    kd, x = distil(student, terms=terms), draw()
    with kd.step(x) as step:
        student(x)
    step.loss()
    assert step.parts["a"] > 0
    assert step.parts["b"] > 0
    assert len(list(kd.parameters())) == 6
    assert step.parts["a"].item() == take(distil(student, terms={"a": terms["a"]}), student).item()


@dataclass
class Plain:
    logits: Tensor
    hidden: tuple[Tensor, ...]


class Output(OrderedDict[str, Any]):
    """An ordered dictionary with attributes, as Hugging Face's models return."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


FORMS: dict[str, Any] = {
    "tuple": lambda *outputs: outputs,
    "dict": lambda logits, hidden: {"logits": logits, "hidden": hidden},
    "attributes": Plain,
    "both": lambda logits, hidden: Output(logits=logits, hidden=hidden),
}


class Encoder(nn.Module):
    """Returns two maps in some form, and so does the model that holds it."""

    def __init__(self, form: str, width: int = 4) -> None:
        super().__init__()
        self.net, self.form = make_net(width), FORMS[form]

    def forward(self, x: Tensor) -> Any:
        one = self.net.one(x)
        return self.form(self.net(x), (one, self.net.two(one.relu())))


@pytest.mark.parametrize("form", FORMS)
def test_what_models_return(form: str, student: Net) -> None:
    """Logits are guessed by their name, else `output` says where; `select` picks a level of what the model returns."""
    model, teacher = nn.Sequential(Encoder(form)), Encoder("dict", 6)
    pick = (lambda raw: raw[0]) if form == "tuple" else None
    select: Any = {"tuple": lambda raw: raw[1][1]}.get(
        form, lambda raw: (raw["hidden"] if form != "attributes" else raw.hidden)[1]
    )
    terms = {
        "class": Logits("kl"),
        "map": Features("pkd", student="0", teacher="", select=select, teacher_select=lambda raw: raw["hidden"][1]),
    }
    output: Any = (pick, None)
    kd = distil(model, teacher, terms, output=output)
    same = distil(student, make_net(6), {"class": Logits("kl"), "map": MAP["map"]})
    torch.testing.assert_close(take(kd, model), take(same, student))
    if form == "tuple":
        with pytest.raises(UsageError, match=r"returns tuple.*`output`"):
            distil(model, teacher, terms)


@pytest.mark.parametrize(
    ("form", "select", "count"),
    [("dict", "logits", 1), ("both", ["logits"], 1), ("attributes", "logits", 1), ("tuple", 0, 1), ("tuple", [0], 1)],
)
def test_select_by_key_index_or_attribute(form: str, select: Any, count: int) -> None:
    """Keys, attributes and indices choose; what is not there is named; what is chosen is the teacher's too."""
    term = Features("pkd", student="0", teacher="0", select=select)
    kd, x = distil(nn.Sequential(Encoder(form)), nn.Sequential(Encoder(form, 6)), {"it": term}), draw()
    with kd.step(x) as step:
        kd.student(x)
    assert [tuple(level.shape) for level in step.levels["it"]] == [(4, 5)] * count
    with pytest.raises(UsageError, match=r"'0' returns .* without 'neck'"):
        distil(kd.student, make_net(6), {"it": Features("pkd", student="0", teacher="two", select="neck")})


def test_two_functions_select_from_one_module() -> None:
    """Two functions of the same name on one module of the teacher choose two levels."""
    student, teacher = nn.Sequential(Encoder("dict")), Encoder("dict", 6)

    def term(index: int) -> Features:
        return Features("rkd", student="0", teacher="", select=lambda raw: raw["hidden"][index])

    kd, x = distil(student, teacher, {"one": term(0), "two": term(1)}), draw()
    with kd.step(x) as step:
        student(x)
    step.loss()
    alone = take(distil(student, teacher, {"two": term(1)}), student, x)
    assert step.parts["two"].item() == alone.item()
    assert step.parts["one"].item() != alone.item()


class Keywords(nn.Module):
    """Takes keywords alone, as text models do."""

    def __init__(self, width: int = 4) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(9, width), nn.Linear(width, 3)

    def forward(self, *, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        hidden = self.words(ids) * mask[..., None]
        return {"logits": self.head(hidden.mean(dim=1))}


@pytest.mark.parametrize("form", [dict, UserDict])
def test_mapping_is_keywords(form: Any) -> None:
    """A mapping of any kind is a model's keywords; a mask of tokens counts for tokens, not for the text's class."""
    batch = form(ids=torch.arange(8).view(2, 4), mask=torch.tensor([[1, 1, 1, 0], [1, 1, 0, 0]]))
    terms = {"class": Logits("kl"), "words": Features("fitnets", student="words", teacher="words")}
    student, teacher = Keywords(), Keywords(6).double()
    kd = distil(student, teacher, terms, example=batch)

    def parts(**context: Tensor) -> dict[str, Tensor]:
        with kd.step(batch) as step:
            out = student(**batch)
        step.loss(out, **context)
        return step.parts

    whole, masked = parts(), parts(mask=batch["mask"])
    assert whole["class"] == masked["class"]
    keep = batch["mask"].bool()
    adapted = kd.adapters["kd_0_words"]([student.words(batch["ids"])[keep]])[0]
    expected = F.mse_loss(adapted, teacher.words(batch["ids"])[keep].float())
    torch.testing.assert_close(masked["words"], expected.detach())
    with pytest.raises(UsageError, match=r"mask of \(2, 3\) does not fit features"):
        parts(mask=batch["mask"][:, :3])


def test_tuple_is_arguments() -> None:
    """A tuple is a model's arguments."""

    class Two(Net):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(x + y)

    student, pair = Two(), (draw(), draw(seed=1))
    kd = distil(student, teacher_inputs=sum, example=pair)
    with kd.step(pair) as step:
        out = student(*pair)
    same = distil(student, teacher_inputs=sum, example=pair)
    with same.step(pair, teacher_outputs=same.teachers["teacher"].ask(pair)) as other:
        student(*pair)
    assert step.loss(out) == other.loss(out)


def test_teacher_on_other_inputs(student: Net) -> None:
    """A teacher that takes images twice as large gives maps that are averaged to the student's size."""
    teacher, x = make_net(6, seed=2), draw()
    terms = {"map": Features("fitnets", student="two", teacher="two")}
    kd = distil(student, teacher, terms, teacher_inputs=lambda images: F.interpolate(images, scale_factor=2.0) * 0.5)
    theirs = F.adaptive_avg_pool2d(teacher.two(teacher.one(F.interpolate(x, scale_factor=2.0) * 0.5).relu()), 6)
    ours = kd.adapters["kd_0_map"]([student.two(student.one(x).relu())])[0]
    torch.testing.assert_close(take(kd, student), F.mse_loss(ours, theirs))


class Tokens(nn.Module):
    """Gives tokens (N, L, C), or their mean (N, C)."""

    def __init__(self, length: int = 36, *, mean: bool = False) -> None:
        super().__init__()
        self.two, self.length, self.mean = nn.Linear(3, 6), length, mean

    def forward(self, x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)[:, : self.length]
        return self.two(tokens.mean(dim=1) if self.mean else tokens)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("ours", "theirs", "loss", "sentence"),
    [
        (make_net(), Tokens(), "pkd", r"level 1 of map.*\(4, 4, 6, 6\).*\(4, 36, 6\)"),
        (Tokens(mean=True), make_net(6), "pkd", r"level 1 of map.*\(4, 6\).*\(4, 6, 6, 6\)"),
        (Tokens(), Tokens(35), "pkd", "36 tokens do not compare with the teacher's 35"),
        (Tokens(), Tokens(), "cwd", r"cwd compares positions.*\(4, 36, 6\); use pkd or fitnets"),
    ],
)
def test_what_cannot_be_compared(ours: nn.Module, theirs: nn.Module, loss: str, sentence: str) -> None:
    """Kinds of features that do not compare are refused at construction, with both shapes."""
    with pytest.raises(UsageError, match=sentence):
        distil(ours, copy.deepcopy(theirs), {"map": Features(loss, student="two", teacher="two")})


def test_pixel_masks_are_brought_to_a_levels_size(student: Net) -> None:
    """A mask of pixels counts at half the size for a map of half the size, and not at all for vectors."""

    class Pooled(Net):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.avg_pool2d(x, 2))

    x = draw(4, 3, 6, 12)
    mask = torch.zeros(4, 6, 12)
    mask[:, :, 8:] = 1
    ours = Pooled()
    terms = {
        "map": Features("fitnets", student="two", teacher="two"),
        "end": Features("pkd", student="head", teacher="head"),
    }
    kd = distil(ours, terms=terms, example=x)
    with kd.step(x) as step:
        ours(x)
    step.loss(mask=mask)
    small = F.avg_pool2d(x, 2)
    (adapted,) = kd.adapters["kd_0_map"]([ours.two(ours.one(small).relu())])
    teacher: Any = kd.teachers["teacher"].model
    theirs = F.adaptive_avg_pool2d(teacher.two(teacher.one(x).relu()), (3, 6))
    torch.testing.assert_close(step.parts["map"], F.mse_loss(adapted[..., 4:], theirs[..., 4:]).detach())
    with kd.step(x) as other:
        ours(x)
    other.loss()
    assert other.parts["end"] == step.parts["end"]
