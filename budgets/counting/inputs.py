"""What a model is fed, as text: `640`, `1x3x480x640`, `input_ids=1x128:int64`, `{a=1x8,b=[8:int64]}`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from featherpress.errors import UsageError

TYPES: tuple[str, ...] = ("float32", "float16", "bfloat16", "float64", "complex64", "complex128")
TYPES += ("int64", "int32", "int16", "int8", "uint8", "bool")
_LARGEST_SIDE, _LARGEST, _MOST_AXES = 65536, 2**31 - 1, 8
_WORDS = {"true": True, "false": False, "none": None}


class Inputs(NamedTuple):
    """The arguments of one forward, by place and by name."""

    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = {}


def make_inputs(texts: Sequence[str], *, kind: torch.dtype = torch.float32) -> Inputs:
    """Make the zeros that texts describe, each one input or several with commas between.

    `640` is a square image (1, 3, 640, 640), `1x77:int64` a shape with its type, `8:int64` a vector, `scalar:int64` a
    number; without a type they are of `kind`. `name=` in front makes a keyword argument; `{a=1x8,b=8:}` is a
    dictionary, `[3x8x8,3x9x9]` a list; `true`, `false` and `none` stand for themselves.

    Errors: `UsageError` for anything else.
    """
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for text in texts:
        try:
            for part in _split(text):
                name, value = _named(part)
                if name in kwargs:
                    raise ValueError
                if name:
                    kwargs[name] = _read(value, kind)
                else:
                    args.append(_read(value, kind))
        except ValueError as error:
            raise UsageError(
                f"--input is the side of a square image, as 640, of sizes from 1 to {_LARGEST_SIDE}, or a shape for "
                "each input, as 1x3x480x640, 1x77:int64,1x77:bool, input_ids=1x128:int64, 8:int64 (a vector) or "
                f"scalar; got {text!r}"
            ) from error
    return Inputs(tuple(args), kwargs)


def describe_inputs(inputs: Inputs) -> tuple[str, ...]:
    """Write what a model is fed as texts that `make_inputs` reads, and classes that it cannot make by their names."""
    named = (f"{name}={_describe(value)}" for name, value in inputs.kwargs.items())
    return (*map(_describe, inputs.args), *named)


def same_inputs(some: Sequence[str], others: Sequence[str]) -> bool:
    """Tell whether two descriptions are of the same shapes under the same names; types may differ."""
    return sorted(map(_untyped, some)) == sorted(map(_untyped, others))


def input_type(model: nn.Module) -> torch.dtype:
    """Tell the type that a model in half or double precision wants its images in: that of its first weights."""
    kinds = (tensor.dtype for tensor in model.parameters() if tensor.is_floating_point() and tensor.itemsize > 1)
    return next(kinds, torch.float32)


def empty_tensor(*shape: int, kind: torch.dtype | None = None) -> Tensor:
    """Make zeros of any size without taking memory for them."""
    return torch.zeros(1, dtype=kind).expand(*shape) if shape else torch.zeros((), dtype=kind)


def _read(text: str, kind: torch.dtype) -> Any:
    """Make one value; ValueError for what is none."""
    if text[:1] + text[-1:] == "[]":
        return [_read(part, kind) for part in _split(text[1:-1])]
    if text[:1] + text[-1:] == "{}":
        return {name: _read(value, kind) for name, value in map(_named, _split(text[1:-1]))}
    if text in _WORDS:
        return _WORDS[text]
    shape, colon, name = text.partition(":")
    if name and name not in TYPES:
        raise ValueError
    own = getattr(torch, name) if name else kind
    if shape == "scalar":
        return empty_tensor(kind=own)
    is_side = not colon and "x" not in shape
    axes = [_size(size, _LARGEST_SIDE if is_side else _LARGEST) for size in shape.split("x")]
    if len(axes) > _MOST_AXES:
        raise ValueError
    return empty_tensor(*([1, 3, *axes, *axes] if is_side else axes), kind=own)


def _size(text: str, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 12 and 1 <= int(text) <= most):
        raise ValueError
    return int(text)


def _named(text: str) -> tuple[str, str]:
    """Split `name=value`; the name is empty where there is none."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip().isidentifier():
        return "", text
    return name.strip(), value.strip()


def _split(text: str) -> Iterator[str]:
    """Split at the commas that are in no bracket."""
    depth, begin = 0, 0
    for place, letter in enumerate(text + ","):
        depth += (letter in "[{") - (letter in "]}")
        if letter == "," and not depth:
            yield text[begin:place].strip()
            begin = place + 1
    if depth:
        raise ValueError


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        shape = "x".join(map(str, value.shape)) or "scalar"
        plain = value.dtype is torch.float32 and value.dim() != 1
        return shape if plain else f"{shape}:{str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}={_describe(item)}" for key, item in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return f"[{','.join(map(_describe, value))}]"
    words = [word for word, meant in _WORDS.items() if value is meant]
    return words[0] if words else type(value).__name__


def _untyped(text: str) -> str:
    for name in TYPES:
        text = text.replace(f":{name}", "")
    return text
