"""Which mutants a file has: its syntax tree with one small fault put in.

Left alone are docstrings and all other text, type annotations and aliases, decorators, `__all__`, blocks under
`if TYPE_CHECKING`, protocols, what is logged, what is asserted or raised, and the keyword `strict`.
"""

import ast
import copy
import hashlib
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from pathlib import Path
from types import CodeType
from typing import TypeAlias

Replace: TypeAlias = Callable[[ast.AST], None]

_COMPARISONS: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_NEGATED_BY_OPERATOR = (ast.Eq, ast.NotEq, ast.Is, ast.IsNot, ast.In, ast.NotIn)
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.MatMult: ast.Mult,
}
_NONE_STAYS_IN = (ast.Return, ast.Compare, ast.Subscript, ast.Tuple)
_LEFT_ALONE = {"annotation", "returns", "decorator_list", "bases", "type_comment", "type_params"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Mutant:
    """One fault: its place in a file, and the lines that run it; one outside functions is run by the import."""

    file: str
    number: int
    function: str
    kind: str
    ordinal: int
    lines: range
    at_import: bool

    @property
    def name(self) -> str:
        """What stays when lines move: file, function, kind, and which one of its kind there."""
        return f"{self.file} {self.function} {self.kind} {self.ordinal}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    function: str = ""
    lines: range = range(0)
    statement: ast.stmt = field(default_factory=ast.Pass)
    at_import: bool = True
    returns_bool: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Edit:
    kind: str
    place: _Place
    apply: Callable[[], None]


def list_mutants(root: Path, file: str) -> list[Mutant]:
    """List a file's mutants in the order of its syntax tree."""
    seen: Counter[tuple[str, str]] = Counter()
    mutants = []
    for number, edit in enumerate(_walk(_parse(root / file), _Place())):
        seen[edit.place.function, edit.kind] += 1
        mutants.append(
            Mutant(
                file=file,
                number=number,
                function=edit.place.function,
                kind=edit.kind,
                ordinal=seen[edit.place.function, edit.kind],
                lines=edit.place.lines,
                at_import=edit.place.at_import,
            )
        )
    return mutants


def draw(mutants: Iterable[Mutant], count: int, seed: int) -> list[Mutant]:
    """Draw those whose hashes with the seed are least, so that most stay drawn when a file changes elsewhere."""

    def place(mutant: Mutant) -> str:
        return hashlib.sha256(f"{seed} {mutant.name}".encode()).hexdigest()

    return sorted(mutants, key=place)[:count]


def compile_mutant(path: Path, number: int) -> CodeType:
    """Compile a file with the fault of a number in it."""
    tree = _parse(path)
    list(_walk(tree, _Place()))[number].apply()
    code: CodeType = compile(ast.fix_missing_locations(tree), str(path), "exec", dont_inherit=True)
    return code


def show(root: Path, mutant: Mutant) -> tuple[str, str]:
    """Write the faulty statement, without the blocks below it, before and after."""
    tree = _parse(root / mutant.file)
    edit = list(_walk(tree, _Place()))[mutant.number]
    statement = edit.place.statement
    before = _head(statement)
    edit.apply()
    where = (statement.lineno, statement.col_offset)
    statements = (node for node in ast.walk(tree) if isinstance(node, ast.stmt))
    return before, _head(next(node for node in statements if (node.lineno, node.col_offset) == where))


def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _head(statement: ast.stmt) -> str:
    short = copy.copy(statement)
    for block in ("body", "orelse", "handlers", "finalbody"):
        if getattr(short, block, None):
            setattr(short, block, [ast.Pass()] if block == "body" else [])
    lines = ast.unparse(ast.fix_missing_locations(short)).splitlines()
    return "\n".join(line for line in lines if line.strip() != "pass") or "pass"


def _walk(parent: ast.AST, place: _Place) -> Iterator[_Edit]:
    """Yield every fault that can be put below a node; `apply` puts it in."""
    for name, child, put in _children(parent):
        if _left_alone(parent, name, child):
            continue
        inner = _inner_place(child, place)
        for kind, mutated in _mutations(parent, child, inner):
            yield _Edit(kind=kind, place=inner, apply=partial(put, mutated))
        yield from _walk(child, inner)


def _children(parent: ast.AST) -> Iterator[tuple[str, ast.AST, Replace]]:
    for name, value in ast.iter_fields(parent):
        if isinstance(value, ast.AST):
            yield name, value, partial(setattr, parent, name)
        elif isinstance(value, list):
            for position, each in enumerate(value):
                if isinstance(each, ast.AST):
                    yield name, each, partial(operator.setitem, value, position)


def _left_alone(parent: ast.AST, name: str, child: ast.AST) -> bool:
    if name in _LEFT_ALONE or isinstance(child, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom):
        return True
    match child:
        case ast.ClassDef(bases=bases):
            return any("Protocol" in ast.unparse(base) for base in bases)
        case ast.Assign(targets=[ast.Name(id="__all__" | "__version__")]):
            return True
        case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar")) | ast.Subscript(value=ast.Name(id="Literal"))):
            return True
        case ast.Assign(value=ast.Call(func=ast.Attribute(value=ast.Name(id="logging")))):
            return True
        case ast.AnnAssign(annotation=ast.Name(id="TypeAlias")) | ast.AnnAssign(value=None):
            return True
        case ast.If(test=ast.Name(id="TYPE_CHECKING")) | ast.keyword(arg="strict"):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="logger" | "logging")))):
            return True
        case ast.Expr(value=ast.Constant()):
            return True
    return isinstance(parent, ast.ClassDef) and name == "keywords"


def _inner_place(child: ast.AST, place: _Place) -> _Place:
    """Follow the function and the statement that a node is in; a default belongs to the whole function's lines."""
    if not isinstance(child, ast.stmt):
        return place
    end = child.end_lineno or child.lineno
    if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return _Place(
            function=f"{place.function}.{child.name}".lstrip("."),
            lines=range(child.lineno, end + 1),
            statement=child,
            at_import=place.at_import and isinstance(child, ast.ClassDef),
            returns_bool=ast.unparse(getattr(child, "returns", None) or ast.Pass()) == "bool",
        )
    body = getattr(child, "body", None)
    end = max(child.lineno, body[0].lineno - 1) if body else end
    return replace(place, lines=range(child.lineno, end + 1), statement=child)


def _mutations(parent: ast.AST, node: ast.AST, place: _Place) -> Iterator[tuple[str, ast.AST]]:
    """Yield kinds of faults with the node that takes the place of `node`."""
    yield from _of_expression(parent, node)
    match node:
        case ast.Expr(value=ast.Call()) | ast.Assign() | ast.AugAssign() | ast.AnnAssign():
            yield "statement", ast.copy_location(ast.Pass(), node)
        case ast.Return(value=ast.expr() as value):
            wanted = (True, False) if place.returns_bool else (None,)
            for constant in wanted:
                if ast.unparse(value) != repr(constant):
                    yield "return", ast.copy_location(ast.Return(ast.Constant(constant)), node)
        case ast.If(test=test) | ast.While(test=test) | ast.IfExp(test=test):
            if not _has_an_opposite(test):
                yield "condition", _changed(node, test=ast.UnaryOp(ast.Not(), test))
        case ast.comprehension(ifs=[test, *rest]):
            if not _has_an_opposite(test):
                yield "condition", _changed(node, ifs=[ast.UnaryOp(ast.Not(), test), *rest])


def _of_expression(parent: ast.AST, node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    match node:
        case ast.Compare(ops=ops):
            for position, old in enumerate(ops):
                for new in _COMPARISONS[type(old)]:
                    yield "comparison", _changed(node, ops=[*ops[:position], new(), *ops[position + 1 :]])
        case ast.BinOp(op=old) | ast.AugAssign(op=old):
            if type(old) in _ARITHMETIC:
                yield "arithmetic", _changed(node, op=_ARITHMETIC[type(old)]())
        case ast.BoolOp(op=old):
            yield "boolean", _changed(node, op=ast.Or() if isinstance(old, ast.And) else ast.And())
        case ast.UnaryOp(op=ast.USub() | ast.Not() | ast.Invert(), operand=operand):
            yield "sign", operand
        case ast.Constant(value=value) if value is not None or not isinstance(parent, _NONE_STAYS_IN):
            for constant in _other_constants(value):
                yield "constant", ast.copy_location(ast.Constant(constant), node)
        case ast.Call(args=[first, second, *rest]) if not isinstance(first, ast.Starred):
            if not isinstance(second, ast.Starred) and ast.unparse(first) != ast.unparse(second):
                yield "arguments", _changed(node, args=[second, first, *rest])


def _other_constants(value: object) -> tuple[object, ...]:
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int | float):
        return value + 1, value - 1
    return (True,) if value is None else ()


def _has_an_opposite(test: ast.expr) -> bool:
    """Tell whether the negation is a fault already, by the operator."""
    if isinstance(test, ast.Compare):
        return len(test.ops) == 1 and isinstance(test.ops[0], _NEGATED_BY_OPERATOR)
    return isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not)


def _changed(node: ast.AST, **fields: object) -> ast.AST:
    changed = copy.copy(node)
    reduce(lambda _, item: setattr(changed, *item), fields.items(), None)
    return changed
