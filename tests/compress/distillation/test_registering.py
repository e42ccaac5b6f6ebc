"""Losses of one's own: unregistered, registered, and brought by another package."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from featherpress.compress.distillation.losses import registry
from featherpress.compress.distillation.losses.bounds import Fraction, Weight
from featherpress.compress.distillation.losses.registry import find_loss, list_losses, register_loss
from featherpress.compress.distillation.terms import Features, Logits
from featherpress.errors import UsageError

from .conftest import Net, distil, draw, take

LABELS = torch.arange(4)


@pytest.fixture(autouse=True)
def register() -> Iterator[None]:
    """Leave the register as it was found."""
    before = dict(registry._REGISTER) if list_losses() else {}
    yield
    registry._REGISTER.clear()
    registry._REGISTER.update(before)
    registry._load.cache_clear()
    sys.modules.pop("outside_losses", None)


def test_function_that_is_not_registered(student: Net) -> None:
    """Any function of two tensors is a loss; of the context it gets what its signature names, in float32."""
    given: dict[str, Any] = {}

    def mine(ours: Tensor, theirs: Tensor, labels: Tensor, *, power: int = 2, extra: Tensor | None = None) -> Tensor:
        given.update(labels=labels, power=power, extra=extra, dtypes={ours.dtype, theirs.dtype})
        return (ours - theirs).abs().pow(power).mean()

    kd, x = (
        distil(student.bfloat16(), terms={"it": Logits(mine, power=3)}, example=draw().bfloat16()),
        draw().bfloat16(),
    )
    for context in ({}, {"extra": LABELS}):
        with kd.step(x) as step:
            out = student(x)
        loss = step.loss(out, labels=LABELS, boxes=None, **context)
        assert given == {"labels": LABELS, "power": 3, "extra": context.get("extra"), "dtypes": {torch.float32}}
        theirs = kd.teachers["teacher"].ask(x).outputs["logits"]
        torch.testing.assert_close(loss, (out.float() - theirs).abs().pow(3).mean())
    with pytest.raises(UsageError, match=r"it: mine needs labels: step.loss\(outputs, labels=...\)"):
        take(kd, student, x)


class Named(nn.Module):
    """Name the labels in `forward`, whose place `__call__` takes."""

    def forward(self, ours: Tensor, theirs: Tensor, labels: Tensor) -> Tensor:
        return (ours - theirs).square().mean() * labels.sum()


def test_module_gets_what_its_forward_names(student: Net) -> None:
    """A loss that is a module is handed context as a function is, and what it needs is asked for."""
    kd = distil(student, terms={"it": Logits(Named())})
    with kd.step(draw()) as step:
        out = student(draw())
    theirs = kd.teachers["teacher"].ask(draw()).outputs["logits"]
    torch.testing.assert_close(step.loss(out, labels=LABELS), (out - theirs).square().mean() * LABELS.sum())
    with pytest.raises(UsageError, match=r"it: Named needs labels: step.loss\(outputs, labels=...\)"):
        take(kd, student)


@pytest.mark.parametrize("kind", [Logits, Features])
def test_keywords_take_all_of_the_context(student: Net, kind: Any) -> None:
    """A function with `**context` is handed everything that is not an option of its own, and a mask like any other."""
    given: dict[str, Any] = {}

    def mine(ours: Tensor, theirs: Tensor, *, power: int = 2, **context: Any) -> Tensor:
        given.update(context, power=power)
        return (ours - theirs).abs().pow(power).mean()

    paths = {} if kind is Logits else {"student": "two", "teacher": "two"}
    kd, mask = distil(student, terms={"it": kind(mine, power=3, **paths)}), torch.ones(4, 6, 6)
    with kd.step(draw()) as step:
        out = student(draw())
    step.loss(out, labels=LABELS, boxes=None, power=7, mask=mask)
    shape = given.pop("mask").shape if kind is Features else (4, 1, 6, 6)  # logits have no places
    assert given == {"labels": LABELS, "boxes": None, "power": 3}
    assert shape == (4, 1, 6, 6)


@pytest.mark.parametrize("loss", [nn.MSELoss(), torch.nn.functional.mse_loss, lambda s, t: (s - t).square().mean()])
@pytest.mark.parametrize("kind", [Logits, Features])
def test_modules_and_functions_of_torch_are_losses(student: Net, loss: Any, kind: Any) -> None:
    """A loss module, a function of torch and a lambda do the same, on outputs and on features."""
    paths = {} if kind is Logits else {"student": "two", "teacher": "two"}
    same = "fitnets" if kind is Features else lambda s, t: (s - t).square().mean()
    expected = take(distil(student, terms={"it": kind(same, **paths)}), student)
    torch.testing.assert_close(take(distil(student, terms={"it": kind(loss, **paths)}), student), expected)


def test_functions_compare_any_features(student: Net) -> None:
    """A loss that nobody registered may compare vectors, too."""
    kd = distil(student, terms={"it": Features(lambda s, t: (s - t).abs().mean(), student="head", teacher="head")})
    assert take(kd, student) > 0


def test_eleventh_loss_is_a_name_like_the_others(student: Net) -> None:
    """A registered loss has its options with bounds, its adapter's kind, its context and its check of shapes."""

    def check(ours: Any, theirs: Any) -> None:
        if ours[1] != 4:
            raise UsageError(f"eleventh wants four channels, got {ours} and {theirs}")

    @register_loss("eleventh", kind="features", adapter="any", maps=True, check=check)
    def eleventh(ours: Tensor, theirs: Tensor, *, scale: Weight = 1.0, share: Fraction = 0.5) -> Tensor:
        return scale * share * (ours.mean() - theirs.mean()).square()

    assert "eleventh" in list_losses()
    one, four = (Features("eleventh", student="two", teacher="two", scale=scale) for scale in (1, 4))
    kd = distil(student, terms={"it": four})
    assert list(kd.parameters()) == []
    assert take(kd, student).item() == pytest.approx(4 * take(distil(student, terms={"it": one}), student).item())
    with pytest.raises(UsageError, match=r"four channels, got \(4, 3, 6, 6\) and \(4, 6, 6, 6\)"):
        distil(nn.Sequential(nn.Identity()), terms={"it": Features("eleventh", student="0", teacher="two")})
    with pytest.raises(UsageError, match=r"eleventh: share is at most 1, got 1\.5"):
        Features("eleventh", student="two", teacher="two", share=1.5)


def test_generation_is_a_kind_of_adapter(student: Net) -> None:
    """MGD's own option decides how much is hidden, another mask at every step, the same ones for the same step."""
    terms = {"it": Features("mgd", student="two", teacher="two", masked=0.5)}
    kd = distil(student, terms=terms)
    first, second = take(kd, student), take(kd, student)
    kd.steps = 0
    assert take(kd, student).item() == first.item() != second.item()
    other = distil(student, terms={"it": Features("mgd", student="two", teacher="two", masked=0.0)})
    assert take(other, student).item() == take(other, student).item() != first.item()


def test_name_that_is_taken() -> None:
    """Another function under a name that is taken is refused with who has it; the same one again is not."""

    def mine(ours: Tensor, theirs: Tensor) -> Tensor:
        return (ours - theirs).mean()

    with pytest.raises(UsageError, match=r"'kl' is registered already, by featherpress.*outputs.kl"):
        register_loss("kl")(mine)
    register_loss("mine")(mine)
    register_loss("mine")(mine)
    with pytest.raises(UsageError, match="named 'mines'; did you mean mine"):
        find_loss("mines")


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("kl", {"temperature": 0}, "kl: temperature is above 0, got 0"),
        ("kl", {"temperature": 20.5}, "kl: temperature is at most 20, got 20.5"),
        ("kl", {"temperature": float("nan")}, "kl: temperature is above 0, got nan"),
        ("kl", {"temperature": "4"}, "kl: temperature is a number, got '4'"),
        ("dist", {"inter": float("inf")}, "dist: inter is finite, got inf"),
        ("kl", {"temperature": True}, "kl: temperature is a number, got True"),
        ("kl", {"tau": 4}, "kl has no option 'tau'; it has temperature"),
        ("kl", {"mask": None}, "kl has no option 'mask'"),
        ("dkd", {"rest": -1}, "dkd: rest is at least 0, got -1"),
        ("dkd", {"weight": -1}, "dkd: a weight is 0 or more and finite, got -1"),
        ("dkd", {"weight": float("inf")}, "dkd: a weight is 0 or more and finite, got inf"),
        ("dist", {"start": 2}, "dist: start is a fraction of the training"),
        ("pkd", {}, r"pkd compares features; write Features\('pkd', ...\)"),
        ("regression", {}, "regression compares boxes or landmarks, not logits; set `output`"),
        ("pdk", {}, "did you mean pkd"),
    ],
)
def test_options_are_bounded(name: str, options: dict[str, Any], sentence: str) -> None:
    """A value that a loss does not allow is refused where the term is written."""
    with pytest.raises(UsageError, match=sentence):
        Logits(name, **options)


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("mgd", {"masked": 1}, "mgd: masked is below 1, got 1"),
        ("kl", {}, r"kl compares logits; write Logits\('kl', ...\)"),
        ("pkd", {"adapter": "wide"}, "pkd: an adapter is auto or none, got 'wide'"),
        ("pkd", {"temperature": 2}, "pkd has no option 'temperature'; it has none"),
    ],
)
def test_options_of_features_are_bounded(name: str, options: dict[str, Any], sentence: str) -> None:
    """Options of losses on features, too."""
    with pytest.raises(UsageError, match=sentence):
        Features(name, student="two", teacher="two", **options)


def install(folder: Path, code: str) -> None:
    """Lay a package out as an installer leaves it."""
    (folder / "outside_losses.py").write_text(code)
    info = folder / "outside_losses-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: outside-losses\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[featherpress.losses]\nanything = outside_losses\n")


CODE = """
from featherpress.compress.distillation.losses.registry import register_loss

@register_loss("outside", maps=False)
def outside(student, teacher, *, power: int = 2):
    return (student - teacher).abs().pow(power).mean()
"""


def test_loss_of_another_package(student: Net, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is installed brings its losses by name, without being imported by anyone."""
    with pytest.raises(UsageError, match="named 'outside'"):
        Logits("outside")
    install(tmp_path, CODE)
    monkeypatch.syspath_prepend(tmp_path)
    registry._load.cache_clear()
    assert take(distil(student, terms={"it": Logits("outside", power=1)}), student).requires_grad


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("import nowhere_at_all", "losses of 'outside_losses' cannot be loaded: No module named 'nowhere_at_all'"),
        (CODE.replace('"outside"', '"kl"'), "'kl' is registered already"),
    ],
)
def test_package_that_does_not_load(code: str, sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package that is broken, or takes a name, is named."""
    install(tmp_path, code)
    monkeypatch.syspath_prepend(tmp_path)
    registry._load.cache_clear()
    with pytest.raises(UsageError, match=sentence):
        Logits("kl")
