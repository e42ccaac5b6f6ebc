"""Files of weights: what they hold by name and type. What runs on them, a file of weights does not say."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from featherpress.budgets.counting.costs import WEIGHTS, Cost, ModuleCost
from featherpress.budgets.counting.memory import Footprint, storage_key
from featherpress.budgets.counting.packed import note_packed
from featherpress.budgets.counting.storage import stored
from featherpress.errors import FileError
from featherpress.files import require_readable

#: Where checkpoints keep the model among other things.
MODEL_KEYS = ("state_dict", "model_state_dict", "model", "module", "net", "params", "weights", "ema", "model_ema")
#: What layers keep beside their parameters, and optimizers of each of them, by the ends of its names.
_BESIDE = (
    "running_mean", "running_var", "num_batches_tracked", "total_ops", "total_params",
    "exp_avg", "exp_avg_sq", "max_exp_avg_sq", "momentum_buffer", "step",
)  # fmt: skip
_SAFETENSORS = {"F": "float", "BF": "bfloat", "I": "int", "U": "uint"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """One tensor of a file; `key` is the same for names that share their memory."""

    name: str
    elements: int
    bytes: int
    type: str
    key: Any
    shape: Sequence[int] = ()
    is_float: bool = False


@dataclass(slots=True)
class Weights:
    """The tensors of a file, each once, what else the file holds, and the files that an index names."""

    tensors: list[Held] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    shards: tuple[Path, ...] = ()


def read_safetensors_header(path: Path) -> Weights:
    """List what a file in safetensors' format holds, by its header alone.

    `*.index.json` names the files of a model in several.
    Errors: FileError for a file that cannot be read, and for an index that names what is not there.
    """
    if path.suffix.lower() == ".json":
        try:
            places = json.loads(path.read_text(encoding="utf-8-sig"))["weight_map"]
            files = {name: path.with_name(name) for name in sorted(set(places.values()))}
            for shard in files.values():
                if shard.suffix.lower() != ".safetensors":
                    raise FileError(f"{path} names {shard.name}, which is no file in safetensors' format")
            held = [each for name, shard in files.items() for each in read_safetensors_header(shard).tensors
                    if places.get(each.name) == name]  # fmt: skip
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise FileError(f"{path} is not an index of weights: {error}") from error
        if missing := places.keys() - {each.name for each in held}:
            raise FileError(f"{path} names {min(missing)}, which {places[min(missing)]} does not hold")
        return Weights(held, shards=tuple(files.values()))
    try:
        require_readable(path)
        with safe_open(path, framework="pt"):
            pass
    except (SafetensorError, OSError) as error:
        raise FileError(f"{path} is not a readable safetensors file: {error}") from error
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    found = []
    for name, about in header.items():
        if name == "__metadata__":
            continue
        begin, end = about["data_offsets"]
        elements = 1
        for size in about["shape"]:
            elements *= size
        kind = _type_name(about["dtype"])
        found.append(
            Held(
                name=name,
                elements=elements,
                bytes=end - begin,
                type=kind,
                key=(path, name),
                shape=about["shape"],
                is_float="float" in kind,
            )
        )
    return Weights(found)


def _type_name(code: str) -> str:
    """Name safetensors' F32, BF16, I64, F8_E4M3 as torch does."""
    letters = code.rstrip("0123456789") if "_" not in code else code[0]
    return _SAFETENSORS.get(letters, letters.lower()) + code.removeprefix(letters).lower()


def list_checkpoint(content: object) -> Weights:
    """List the tensors of what a pickle of tensors held: those of its model, where it names one, else all."""
    notes: tuple[str, ...] = ()
    if isinstance(content, Mapping):
        key = next((key for key in MODEL_KEYS if any(_flatten(content.get(key), ""))), None)
        if key is not None:
            rest = {str(name): sum(t.numel() for _, t in _flatten(part, "")) for name, part in content.items()}
            others = [f"{name} ({many:,} numbers)" if many else name for name, many in rest.items() if name != key]
            notes = (f"counted is {key!r}; the file also holds {', '.join(others)}",) if others else ()
            content = content[key]
    found = [
        Held(
            name=name,
            elements=tensor.numel(),
            bytes=sum(part.numel() * part.itemsize for part in stored(tensor)),
            type=str(tensor.dtype).removeprefix("torch."),
            key=(storage_key(tensor), tensor.storage_offset() if tensor.layout is torch.strided else 0, tensor.shape),
            shape=tensor.shape,
            is_float=tensor.is_floating_point(),
        )
        for name, tensor in _flatten(content, "")
    ]
    return Weights(found, notes)


def _flatten(value: object, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, (Mapping, list, tuple)):
        items = value.items() if isinstance(value, Mapping) else enumerate(value)
        for key, item in items:
            yield from _flatten(item, f"{name}.{key}".lstrip("."))


def count_weights(weights: Weights, *, name: str, size: int) -> tuple[Cost, dict[str, dict[str, int]]]:
    """Return what a file holds as the cost of a model that does nothing, and the elements of each type by module.

    `size` is the file's in bytes. A tensor under several names counts once, at the first.
    Errors: FileError where there is none.
    """
    if not weights.tensors:
        raise FileError(f"{name} holds no tensors")
    once = {each.key: each for each in reversed(weights.tensors)}
    tensors = [each for each in weights.tensors if once[each.key] is each]
    rows: defaultdict[str, Any] = defaultdict(Counter)
    types: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for each in tensors:
        path, _, last = each.name.removeprefix("module.").rpartition(".")
        params = 0 if last in _BESIDE else each.elements
        rows[path].update(params=params, trainable=params, bytes=each.bytes)
        types[path][each.type] += each.elements
    held = Footprint.of(lambda width: sum(t.elements * width if t.is_float else t.bytes for t in tensors))
    params, buffers = sum(row["params"] for row in rows.values()), sum(each.elements for each in tensors)
    notes = [f"MACs are not known: {name} holds weights alone, and does not say what runs"]
    if buffers > params:
        lasts = [each.name.rpartition(".")[2] for each in tensors]
        shown = next(last for last in lasts if last in _BESIDE)
        notes.append(f"{buffers - params:,} numbers are no parameters by their names, such as {shown}")
    if len(tensors) < len(weights.tensors):
        notes.append(f"{len(weights.tensors) - len(tensors):,} names share the memory of others, and count once")
    notes += note_packed((each.name, each.shape) for each in tensors)
    cost = Cost(
        model=name,
        inputs=(),
        method=WEIGHTS,
        params=params,
        trainable=params,
        frozen=0,
        unused=0,
        bytes=sum(each.bytes for each in tensors),
        macs=0,
        elementwise=0,
        activations=0,
        peak=0,
        exported=size,
        weight_footprint=held,
        activation_footprint=Footprint(fp32=0, fp16=0, int8=0),
        peak_footprint=Footprint(fp32=0, fp16=0, int8=0),
        modules=tuple(ModuleCost(path=path, **row) for path, row in rows.items()),
        notes=(*notes, *weights.notes),
    )
    return cost, {path: dict(kinds) for path, kinds in types.items()}
