"""Formulas of operators as a command line gives them."""

import ast
from collections.abc import Mapping, Sequence
from math import ceil, log2, prod
from typing import TYPE_CHECKING, Any

from featherpress.errors import CountError, UsageError

if TYPE_CHECKING:
    from featherpress.budgets.counting.formulas import Formula

_NAMES = {"ceil": ceil, "log2": log2, "prod": prod, "max": max, "min": min, "int": int, "len": len}
_NODES: tuple[type[ast.AST], ...] = (ast.Expression, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Call)
_NODES += (ast.Constant, ast.Name, ast.Attribute, ast.Subscript, ast.Slice, ast.expr_context, ast.Tuple)
_NODES += (ast.IfExp, ast.Compare, ast.cmpop)
#: A power of more, or of a power, may take forever.
_LARGEST_EXPONENT = 64


def read_formulas(texts: Sequence[str] | None) -> "dict[str, Formula]":
    """Read `namespace::operator=EXPRESSION`, or `package.module`, whose `FORMULAS` map operators to functions.

    An expression gives MACs from `args` and `result`, as 2 * args[0].numel(); a module may name its table, as
    `package.module:TABLE`.

    Errors: UsageError.
    """
    table: dict[str, Formula] = {}
    for text in texts or ():
        name, equals, expression = (part.strip() for part in text.partition("="))
        if equals and "::" in name:
            table[name] = _named(name, _compile(expression, text))
        elif equals or "::" in name:
            raise UsageError(f"--formula is library::operator=EXPRESSION or a module of formulas; got {text!r}")
        else:
            table |= _import_table(text)
    return table


def _compile(expression: str, text: str) -> "Formula":
    try:
        tree = ast.parse(expression, mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UsageError(f"cannot read --formula {text!r}: {expression!r} is no expression") from error
    for node in ast.walk(tree):
        private = isinstance(node, ast.Attribute) and node.attr.startswith("_")
        unknown = isinstance(node, ast.Name) and node.id not in {*_NAMES, "args", "result"}
        if private or unknown or not isinstance(node, _NODES):
            raise UsageError(
                f"cannot read --formula {text!r}: expected arithmetic on args, result, {', '.join(_NAMES)}; a module "
                "of formulas may do more"
            )
        if isinstance(node, ast.BinOp) and isinstance(node.op, (ast.Pow, ast.LShift)):
            power = node.right.value if isinstance(node.right, ast.Constant) else None
            if not (isinstance(power, (int, float)) and power <= _LARGEST_EXPONENT):
                raise UsageError(
                    f"cannot read --formula {text!r}: expected powers and shifts by a number up to {_LARGEST_EXPONENT}"
                )
    code = compile(tree, "--formula", "eval")
    # Of the user's own command line, and only of what the loop above lets through.
    return lambda args, result: eval(code, {"__builtins__": {}, **_NAMES}, {"args": args, "result": result})  # noqa: S307


def _import_table(text: str) -> "dict[str, Formula]":
    from featherpress.models.factories import import_from_here

    module_name, name = text.rsplit(":", 1) if ":" in text else (text, "FORMULAS")
    table = getattr(import_from_here(module_name, purpose=f"--formula {text}"), name, None)
    if not isinstance(table, Mapping) or not all("::" in str(key) and callable(each) for key, each in table.items()):
        raise UsageError(
            f"--formula is library::operator=EXPRESSION or a module whose {name} maps such names to functions of args "
            f"and result; got {text!r}"
        )
    return {key: _named(key, each) for key, each in table.items()}


def _named(operator: str, formula: "Formula") -> "Formula":
    """Let a formula that fails say so, where a model that fails would be counted by other means."""

    def call(args: Sequence[Any], result: Any) -> int:
        try:
            amount = formula(args, result)
            if amount != int(amount) or amount < 0:
                raise ValueError(f"it gives {amount!r}, expected a whole number")
            return int(amount)
        except Exception as error:
            raise CountError(f"the formula of {operator} fails: {error or type(error).__name__}") from error

    return call
