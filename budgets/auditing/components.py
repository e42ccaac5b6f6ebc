"""Which component each row of a count belongs to."""

from collections.abc import Mapping
from fnmatch import fnmatchcase

from featherpress.budgets.auditing.budget_file import Budget, Component
from featherpress.budgets.counting.costs import ROOT, UNATTRIBUTED, Cost, ModuleCost, ancestors
from featherpress.errors import BudgetFileError

#: The component of tensors that several components own.
SHARED = "shared"


def split(cost: Cost, budget: Budget | None = None) -> dict[str, list[ModuleCost]]:
    """Sort the rows of a count into components, in the model's order; every row lands in exactly one.

    A budget names components by patterns; what it leaves over, and any model without one, goes by top-level child,
    with "(root)" for what the model itself holds or does, and "shared" for tensors tied across components.

    Errors: BudgetFileError if a pattern matches nothing or a module falls into two components.
    """
    paths = [row.path for row in cost.modules if not row.owners and row.path != UNATTRIBUTED]
    tied_name = f"({SHARED})" if SHARED in {path.partition(".")[0] for path in paths} else SHARED
    named = _named(paths, budget, unmatched={tied_name} if cost.shared else set()) if budget else {}
    taken = set(budget.components) if budget else set()
    parts: dict[str, list[ModuleCost]] = {}
    for row in cost.modules:
        if row.path == UNATTRIBUTED:
            name = "unattributed"
        else:
            names = {named.get(place) or _default(place, taken) for place in row.places}
            name = names.pop() if len(names) == 1 else tied_name
        parts.setdefault(name, []).append(row)
    for name in taken - parts.keys():
        raise BudgetFileError(
            f"{budget.file if budget else ''}: component {name} matches nothing in this model: remove it"
        )
    # A row that would show nothing but that the model has a root is left out.
    idle = {
        name
        for name in {ROOT, "unattributed"} & parts.keys() - taken
        if not any(row.params or row.macs or row.bytes for row in parts[name])
    }
    return {name: rows for name, rows in parts.items() if name not in idle}


def shapes_of(rows: list[ModuleCost], cost: Cost, places: Mapping[str, int]) -> tuple[str, str] | None:
    """Return the shapes that a component takes and returns: of the first and the last of its modules that ran.

    `places` tell which module ran first.
    """
    ran = {row.path for row in rows} & places.keys()
    outermost = sorted((path for path in ran if ran.isdisjoint(ancestors(path))), key=places.__getitem__)
    return (cost.shapes[outermost[0]][0], cost.shapes[outermost[-1]][1]) if outermost else None


def _default(path: str, taken: set[str]) -> str:
    name = path.partition(".")[0] or ROOT
    return f"{name} (rest)" if name in taken else name


def _named(paths: list[str], budget: Budget, *, unmatched: set[str]) -> dict[str, str]:
    """Map each module path to the component that a pattern puts it in."""
    found: dict[str, str] = {}
    for name, component in budget.components.items():
        if name in unmatched and component.modules is None:
            continue
        for root in _matches(paths, name, component, budget):
            for path in paths:
                inside = path == root or (root != "" and path.startswith(root + "."))
                if inside and found.setdefault(path, name) != name:
                    raise BudgetFileError(
                        f"{budget.file}: module {path or ROOT} falls into two components, {found[path]} and {name}: "
                        "narrow the modules of one"
                    )
    return found


def _matches(paths: list[str], name: str, component: Component, budget: Budget) -> list[str]:
    """List the module paths that a component's patterns name."""
    roots: list[str] = []
    for pattern in component.modules or [name]:
        exact = component.modules is None
        fits = [p for p in paths if (p or ROOT) == pattern or (p and not exact and fnmatchcase(p, pattern))]
        if not fits:
            children = list(dict.fromkeys(path.partition(".")[0] or ROOT for path in paths))
            raise BudgetFileError(
                f"{budget.file}: pattern {pattern!r} of component {name} matches no module of the model: "
                f"expected something like {', '.join(children[:9])}"
            )
        roots += fits
    return roots
