"""What a GPU has of its own: half precision with scaled gradients, compiled kernels, students that move to it."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from featherpress.compress.distillation.losses.registry import find_loss, list_losses
from featherpress.compress.distillation.terms import Features, Logits

from .conftest import Net, distil, draw, make_net, take

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

GPU = "cuda"
LOSSES = [name for name in list_losses() if find_loss(name).layout != "priors"]


def gradients(model: nn.Module) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in model.parameters() if weight.grad is not None])


def test_fp16_with_scaled_gradients(student: Net) -> None:
    """Under fp16 autocast with a GradScaler, gradients point where float32's do, and training goes on soundly."""
    student.to(GPU)
    kd, x, y = distil(student, example=draw().to(GPU)), draw().to(GPU), torch.arange(4, device=GPU)
    optimizer = torch.optim.AdamW([*student.parameters(), *kd.parameters()], lr=1e-3)
    take(kd, student, x).backward()
    expected = gradients(student), gradients(kd.adapters)
    optimizer.zero_grad()
    scaler = torch.amp.GradScaler(GPU, init_scale=2.0**10)
    for number in range(3):
        with torch.autocast(GPU, torch.float16), kd.step(x) as step:
            out = student(x)
        loss = step.loss(out, labels=y)
        assert (out.dtype, loss.dtype) == (torch.float16, torch.float32)
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        if not number:
            for found, wanted in zip((gradients(student), gradients(kd.adapters)), expected, strict=True):
                assert F.cosine_similarity(found, wanted, dim=0) > 0.99
        scaler.step(optimizer)
        scaler.update()
        kd.verify(optimizer)
        optimizer.zero_grad()
    assert scaler.get_scale() == 2.0**10  # no step was left out


def test_balance_in_fp16(student: Net) -> None:
    """The share of the task's gradient is measured in fp16 as in float32."""
    student.to(GPU)
    x, y, factors = draw().to(GPU), torch.arange(4, device=GPU), []
    for half in (False, True):
        kd = distil(student, example=x, balance=0.4)
        with torch.autocast(GPU, torch.float16, enabled=half):
            with kd.step(x) as step:
                out = student(x)
            task = F.cross_entropy(out, y)
        step.loss(out, task=task)
        assert kd.balance is not None
        factors.append(kd.balance.factor)
    assert factors[1] == pytest.approx(factors[0], rel=5e-2)


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_runs_on_a_gpu(name: str, student: Net) -> None:
    """No loss leaves tensors on the CPU, and its value there is the CPU's."""
    term: Any = Logits(name) if find_loss(name).kind == "logits" else Features(name, student="two", teacher="two")
    values = []
    for device in ("cpu", GPU):
        student.to(device)
        x, kd = draw().to(device), distil(student, terms={"it": term}, example=draw().to(device))
        boxes = torch.tensor([1.0, 1.0, 4.0, 5.0], device=device).repeat(4, 1, 1)
        with kd.step(x) as step:
            out = student(x)
        present, labels = torch.ones(4, 1, dtype=torch.bool, device=device), torch.arange(4, device=device)
        loss = step.loss(out, labels=labels, boxes=boxes, present=present, image=(6, 6))
        loss.backward()
        values.append(loss.item())
    assert values[1] == pytest.approx(values[0], rel=1e-2, abs=1e-4)


def test_student_may_move_after_construction(student: Net) -> None:
    """Teacher and adapters follow it, the optimizer made before still holds them, and random numbers are left alone."""
    torch.cuda.manual_seed(5)
    random = torch.cuda.get_rng_state()
    kd = distil(student)
    optimizer = torch.optim.AdamW([*student.parameters(), *kd.parameters()])
    student.to(GPU)
    before = [weight.clone() for weight in kd.parameters()]
    for _ in range(2):
        take(kd, student, draw().to(GPU)).backward()
        optimizer.step()
        kd.verify(optimizer)
        optimizer.zero_grad()
    for weight, old in zip(kd.parameters(), before, strict=True):
        assert weight.device.type == GPU
        assert not torch.equal(weight.cpu(), old)
    assert torch.equal(torch.cuda.get_rng_state(), random)


@pytest.mark.parametrize("first", ["compiled", "distiller"])
def test_inductor(student: Net, first: str) -> None:
    """A student that inductor compiles, before or after, gives the loss and the gradients of none."""
    torch._dynamo.reset()
    student.to(GPU)
    x, teacher = draw().to(GPU), make_net(6, seed=2)
    expected = take(distil(student, teacher, example=x), student, x)
    expected.backward()
    wanted = gradients(student)
    student.zero_grad()
    compiled: Any = torch.compile(student)
    kd = distil(compiled if first == "compiled" else student, teacher, example=x)
    found = take(kd, compiled, x)
    found.backward()
    torch.testing.assert_close(found, expected, atol=1e-3, rtol=1e-2)
    torch.testing.assert_close(gradients(student), wanted, atol=1e-3, rtol=1e-2)
    torch._dynamo.reset()
