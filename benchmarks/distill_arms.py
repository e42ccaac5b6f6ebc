"""The arms of `distill_peers.py`: the same two terms, by a Distiller, by hand, and by other libraries."""

import copy
import importlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import resnet18, resnet50

from featherpress.compress import Distiller, Features, Logits

TEMPERATURE, WEIGHT, LAYER = 4.0, 0.5, "layer3"
Step = Callable[[], Tensor]


class Setting:
    """A student, a teacher, an adapter and a batch, from which every arm takes copies."""

    def __init__(self, batch: int, size: int) -> None:
        torch.manual_seed(0)
        self.student, self.teacher = resnet18(), resnet50().eval().requires_grad_(False)
        self.adapter = nn.Conv2d(256, 1024, 1)
        self.images, self.labels = torch.randn(batch, 3, size, size), torch.randint(1000, (batch,))

    def models(self) -> tuple[nn.Module, nn.Module, nn.Conv2d]:
        """Copy student, teacher and adapter."""
        student, teacher, adapter = copy.deepcopy((self.student, self.teacher, self.adapter))
        return student.train(), teacher, adapter


def descend(optimizer: torch.optim.Optimizer, loss: Tensor) -> Tensor:
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return loss


def sgd(*modules: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(nn.ModuleList(modules).parameters(), lr=1e-3, momentum=0.9)


def plain(given: Setting) -> Step:
    student, _, _ = given.models()
    optimizer = sgd(student)
    return lambda: descend(optimizer, F.cross_entropy(student(given.images), given.labels))


def featherpress(given: Setting) -> Step:
    student, teacher, adapter = given.models()
    terms = {
        "class": Logits("kl", temperature=TEMPERATURE, weight=WEIGHT),
        "map": Features("fitnets", student=LAYER, teacher=LAYER, weight=WEIGHT),
    }
    kd = Distiller(student, teacher, terms, example=given.images)
    (ours,) = (module for module in kd.adapters.modules() if isinstance(module, nn.Conv2d))
    ours.load_state_dict(adapter.state_dict())
    optimizer = sgd(student, kd.adapters)

    def step() -> Tensor:
        with kd.step(given.images) as begun:
            out = student(given.images)
        return descend(optimizer, F.cross_entropy(out, given.labels) + begun.loss(out))

    return step


def by_hand(given: Setting) -> Step:
    student, teacher, adapter = given.models()
    caught: dict[str, Tensor] = {}
    for name, model in (("student", student), ("teacher", teacher)):
        model.get_submodule(LAYER).register_forward_hook(lambda _m, _i, out, name=name: caught.update({name: out}))
    optimizer = sgd(student, adapter)

    def step() -> Tensor:
        with torch.no_grad():
            said = teacher(given.images)
        out = student(given.images)
        pair = F.log_softmax(out / TEMPERATURE, dim=1), F.softmax(said / TEMPERATURE, dim=1)
        divergence = F.kl_div(*pair, reduction="batchmean") * TEMPERATURE**2
        squares = F.mse_loss(adapter(caught["student"]), caught["teacher"])
        return descend(optimizer, F.cross_entropy(out, given.labels) + WEIGHT * divergence + WEIGHT * squares)

    return step


def model_optimizer(given: Setting) -> Step:
    """Weights of its balancer sum to 1, so that its loss is half of the others'."""
    mtd: Any = importlib.import_module("modelopt.torch.distill")
    student, teacher, adapter = given.models()

    class Squares(nn.modules.loss._Loss):
        def __init__(self) -> None:
            super().__init__()
            self.adapter = adapter

        def forward(self, ours: Tensor, theirs: Tensor) -> Tensor:
            return F.mse_loss(self.adapter(ours), theirs)

    criterion = {
        ("fc", "fc"): mtd.LogitsDistillationLoss(TEMPERATURE, reduction="batchmean"),
        (LAYER, LAYER): Squares(),
    }
    config = {
        "teacher_model": teacher,
        "criterion": criterion,
        "loss_balancer": mtd.StaticLossBalancer([WEIGHT / 2, WEIGHT / 2]),
    }
    model = mtd.convert(student, mode=[("kd_loss", config)])
    optimizer = torch.optim.SGD([w for w in model.parameters() if w.requires_grad], lr=1e-3, momentum=0.9)

    def step() -> Tensor:
        out = model(given.images)
        return 2 * descend(optimizer, model.compute_kd_loss(student_loss=F.cross_entropy(out, given.labels))).detach()

    return step


def torchdistill(given: Setting) -> Step:
    wrappers: Any = importlib.import_module("torchdistill.models.wrapper")
    box: Any = importlib.import_module("torchdistill.core.distillation")
    student, teacher, adapter = given.models()

    class Adapted(wrappers.AuxiliaryModelWrapper):  # type: ignore[misc]
        def __init__(self, student_model: nn.Module, **_: object) -> None:
            super().__init__()
            self.student_model, self.adapter = student_model, adapter

        def forward(self, images: Tensor) -> Any:
            return self.student_model(images)

        def secondary_forward(self, caught: Mapping[str, Any]) -> None:
            self.adapter(caught[f"student_model.{LAYER}"]["output"])

    wrappers.register_auxiliary_model_wrapper(Adapted)
    ends = {"student_module_path": ".", "student_module_io": "output", "teacher_module_path": "."}
    divergence = ends | {"teacher_module_io": "output", "temperature": TEMPERATURE, "alpha": 1.0, "beta": WEIGHT}
    squares = {
        "input": {"is_from_teacher": False, "module_path": "adapter", "io": "output"},
        "target": {"is_from_teacher": True, "module_path": LAYER, "io": "output"},
    }
    terms = {
        "kd": {"criterion": {"key": "KDLoss", "kwargs": divergence}, "weight": 1.0},
        "map": {
            "criterion": {"key": "MSELoss", "kwargs": {"reduction": "mean"}},
            "criterion_wrapper": {"key": "SimpleLossWrapper", "kwargs": squares},
            "weight": WEIGHT,
        },
    }
    config = {
        "num_epochs": 1,
        "teacher": {
            "forward_proc": "forward_batch_only",
            "forward_hook": {"output": [LAYER]},
            "requires_grad": False,
        },
        "student": {
            "forward_proc": "forward_batch_only",
            "forward_hook": {"output": [f"student_model.{LAYER}", "adapter"]},
            "auxiliary_model_wrapper": {"key": "Adapted"},
        },
        "optimizer": {"key": "SGD", "kwargs": {"lr": 1e-3, "momentum": 0.9}},
        "criterion": {"key": "WeightedSumLoss", "kwargs": {"sub_terms": terms}},
    }
    built = box.get_distillation_box(teacher, student, {}, config, torch.device("cpu"), None, False, 1)

    def step() -> Tensor:
        loss: Tensor = built.forward_process(given.images, given.labels)
        built.post_forward_process(loss)
        return loss

    return step
