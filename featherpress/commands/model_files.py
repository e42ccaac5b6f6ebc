"""Files as targets: graphs in ONNX, programs of torch.export, and weights."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featherpress.errors import FileError, UsageError
from featherpress.extras import missing_packages, require_extra

if TYPE_CHECKING:
    from featherpress.budgets import Audit, Budget
    from featherpress.budgets.counting.formulas import Formula
    from featherpress.budgets.counting.inputs import Inputs
    from featherpress.records.audit import Pin

PICKLES = (".pth", ".pt", ".bin", ".ckpt", ".tar")
SUFFIXES = (".onnx", ".pt2", ".safetensors", ".safetensors.index.json", *PICKLES)


def is_file(target: str) -> bool:
    """Tell files by their suffix; `TARGET@FILE` is a model with a file's weights, unless a file is called so."""
    return target.lower().endswith(SUFFIXES) and ("@" not in target or Path(target).is_file())


def audit_file(
    target: str,
    budget: "Budget | None" = None,
    *,
    inputs: Sequence[str] = (),
    pin: "Pin | None" = None,
    formulas: "Mapping[str, Formula] | None" = None,
    strict_claims: bool = False,
) -> "Audit":
    """Count what a file holds, and check it.

    Errors: FileError for a file that is missing, broken or not safe to read; those of `audit`.
    """
    from featherpress.budgets.auditing.audit import audit_cost
    from featherpress.budgets.counting.inputs import make_inputs

    path = Path(target)
    if not path.is_file():
        raise FileError(f"there is no file {path}")
    fed = [text for text in inputs if text] or (pin.signature if pin else ())
    given = make_inputs(fed) if fed else budget.make_inputs() if budget else None
    if fed and not any(inputs) and pin:
        source = f"from {pin.file.name}"
    else:
        source = "as given" if fed else f"from {Path(budget.file).name}" if budget else "as the graph says"
    if path.suffix.lower() == ".pt2":
        return _audit_program(path, given, source, budget, formulas, strict_claims=strict_claims)
    if path.suffix.lower() != ".onnx":
        return _audit_weights(path, budget, strict_claims=strict_claims)
    if "onnx" in missing_packages("export"):
        require_extra("export", "reading ONNX")
    from featherpress.budgets.files.onnx_graph import count_onnx

    cost = count_onnx(path, given, formulas=formulas)
    result = audit_cost(cost, budget, name=target, strict_claims=strict_claims)
    return result.model_copy(update={"input_source": source})


def _audit_program(
    path: Path,
    given: "Inputs | None",
    source: str,
    budget: "Budget | None",
    formulas: "Mapping[str, Formula] | None",
    *,
    strict_claims: bool,
) -> "Audit":
    from dataclasses import replace

    from featherpress.budgets import count
    from featherpress.budgets.auditing.audit import audit_cost
    from featherpress.budgets.files.programs import open_program

    model, example = open_program(path)
    args, kwargs = given or example
    cost = replace(count(model, *args, kwargs=kwargs, formulas=formulas), exported=path.stat().st_size)
    result = audit_cost(cost, budget, name=str(path), strict_claims=strict_claims)
    return result.model_copy(update={"input_source": source.replace("the graph says", "it was exported with")})


def _audit_weights(path: Path, budget: "Budget | None", *, strict_claims: bool) -> "Audit":
    from featherpress.budgets.auditing.audit import audit_cost
    from featherpress.budgets.auditing.components import split
    from featherpress.budgets.files.weights import count_weights, list_checkpoint, read_safetensors_header
    from featherpress.models.checkpoints import open_pickle

    is_pickle = path.suffix.lower() in PICKLES
    weights = list_checkpoint(open_pickle(path)) if is_pickle else read_safetensors_header(path)
    size = sum(file.stat().st_size for file in (path, *weights.shards))
    cost, types = count_weights(weights, name=str(path), size=size)
    result = audit_cost(cost, budget, name=str(path), strict_claims=strict_claims)
    rows = []
    for row, inside in zip(result.components, split(cost, budget).values(), strict=True):
        kinds: dict[str, int] = {}
        for module in inside:
            for kind, many in types.get(module.path, {}).items():
                kinds[kind] = kinds.get(kind, 0) + many
        rows.append(row.model_copy(update={"types": kinds}))
    return result.model_copy(update={"components": tuple(rows)})


def refuse_for_files(target: str, options: Mapping[str, object]) -> None:
    """Refuse options that only a model can answer.

    Errors: UsageError.
    """
    given = [name for name, value in options.items() if value]
    if given and is_file(target):
        raise UsageError(f"{', '.join(given)} is for a model: {target} is a file")
