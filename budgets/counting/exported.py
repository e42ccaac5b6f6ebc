"""Programs of torch.export: one flat graph, whose nodes say which modules they were written in."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from torch import nn
from torch.fx import GraphModule, Node
from torch.utils import _python_dispatch

from featherpress.budgets.counting.dispatch import CountingMode

#: What sets a second call of a module apart from its first.
_CALL = re.compile(r"@\d+")


def module_of(program: Any) -> nn.Module:
    """Return an exported program's module; a count of it credits the modules that the program was exported from."""
    try:
        module: GraphModule = program.module(check_guards=False)
    except TypeError:  # before PyTorch 2.9 there are none
        module = program.module()
    before: tuple[tuple[str, str], ...] = ()
    for node in list(module.graph.nodes):
        around = before if node.op in {"placeholder", "get_attr"} else tuple(_around(node))
        if around != before:
            with module.graph.inserting_before(node):
                module.graph.call_function(_enter, (around,))
        before = around
    module.recompile()
    return module


def _around(node: Node) -> Iterator[tuple[str, str]]:
    """List path and class of the modules around a node, the outermost first, without the whole model."""
    for path, kind in node.meta.get("nn_module_stack", {}).values():
        if path:
            yield path, (kind if isinstance(kind, str) else kind.__name__).rpartition(".")[2]


def _enter(around: Sequence[tuple[str, str]]) -> None:
    """Tell the count, if there is one, that what follows ran in these modules."""
    mode = _python_dispatch._get_current_dispatch_mode()
    if isinstance(mode, CountingMode):
        mode.stack.enter([(path, _CALL.sub("", path), kind) for path, kind in around])
