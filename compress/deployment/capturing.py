"""A model traced by torch.export, with its batch and size left free."""

from typing import Any

import torch
from torch.export import Dim, ExportedProgram

from featherpress.compress.deployment.graphs import LEAST_SIDE, Subject
from featherpress.compress.deployment.quiet import quiet
from featherpress.errors import ExportError


def capture(subject: Subject) -> ExportedProgram:
    """Trace a model for every batch and size that it takes.

    Errors: `ExportError` that says what torch cannot trace.
    """
    least = dict.fromkeys((2, 3), LEAST_SIDE) if subject.detector else {}
    sizes: dict[int, Any] = {axis: Dim.AUTO(min=least.get(axis, 1)) for axis in subject.dynamic}
    try:
        # oneDNN's choice by batch size would become a condition on the batch.
        with quiet(), torch.no_grad(), torch.backends.mkldnn.flags(enabled=False):
            program = torch.export.export(
                subject.module,
                (torch.randn(subject.example),),
                dynamic_shapes=(sizes,),
                strict=False,
                prefer_deferred_runtime_asserts_over_guards=True,
            )
    except Exception as error:  # tracing runs other people's code and raises what it and torch raise
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(f"{subject.name} cannot be traced by torch.export: {reason[:300]}") from error
    fixed = [name for axis, name in subject.dynamic.items() if isinstance(_image_shape(program)[axis], int)]
    if fixed:
        raise ExportError(f"{subject.name} was traced for one {' and '.join(fixed)} only; its code branches on it")
    return program


def _image_shape(program: ExportedProgram) -> torch.Size:
    [name] = program.graph_signature.user_inputs
    [node] = [node for node in program.graph.nodes if node.name == name]
    shape: torch.Size = node.meta["val"].shape
    return shape
