"""What a model is fed, written and read: any shape, type, name and nesting."""

from collections import namedtuple

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from featherpress.budgets.counting.inputs import TYPES, Inputs, describe_inputs, empty_tensor, make_inputs, same_inputs
from featherpress.errors import UsageError


def test_texts_become_tensors() -> None:
    """A side alone is an image; with a type, or a colon, one number is a vector; names are keywords."""
    args, kwargs = make_inputs(["640,1x10,1:int64", "8:", "scalar:int64", "mask=1x7:bool"], kind=torch.float16)
    assert [(tuple(each.shape), each.dtype) for each in args] == [
        ((1, 3, 640, 640), torch.float16),
        ((1, 10), torch.float16),
        ((1,), torch.int64),
        ((8,), torch.float16),
        ((), torch.int64),
    ]
    assert (tuple(kwargs["mask"].shape), kwargs["mask"].dtype) == ((1, 7), torch.bool)


def test_dictionaries_lists_and_words() -> None:
    """Batches as dictionaries, lists of images, and switches."""
    args, kwargs = make_inputs(["{ids=1x8:int64,mask=1x8:bool}", "[3x8x8,3x9x9]", "return_dict=false", "past=none"])
    assert list(args[0]) == ["ids", "mask"]
    assert [tuple(image.shape) for image in args[1]] == [(3, 8, 8), (3, 9, 9)]
    assert dict(kwargs) == {"return_dict": False, "past": None}


@pytest.mark.parametrize(
    "text", ["", "wide", "0", "70000", "1x3,", "a=", "a=1x2,a=1x2", "{1x2", "1x2]", "1x2:float7", "1x9999999999", "²"]
)
def test_what_is_no_input(text: str) -> None:
    """One sentence shows what is meant, and the text."""
    with pytest.raises(UsageError, match=r"input_ids=1x128:int64, .*got"):
        make_inputs([text])


shapes = st.lists(st.integers(1, 99), min_size=0, max_size=5)
tensors = st.builds(lambda shape, kind: empty_tensor(*shape, kind=getattr(torch, kind)), shapes, st.sampled_from(TYPES))
names = st.sampled_from(["x", "input_ids", "mask", "größe"])
values = st.recursive(
    tensors | st.sampled_from([True, False, None]),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(names, inner, min_size=1, max_size=3),
    max_leaves=4,
)


@given(st.lists(values, max_size=3), st.dictionaries(names, values, max_size=3))
def test_what_is_described_is_made_again(args: list[object], kwargs: dict[str, object]) -> None:
    """Whatever can be fed in tensors, lists and dictionaries comes back of the same shapes and types."""
    described = describe_inputs(Inputs(tuple(args), kwargs))
    assert describe_inputs(make_inputs(described, kind=torch.float32)) == described


def test_inputs_are_the_same_whatever_their_types_and_the_order_of_names() -> None:
    """Names and shapes tell inputs apart; places of what has no name do too."""
    assert same_inputs(["1x3x8x8:float16", "a=1x2", "b=1x3"], ["1x3x8x8", "b=1x3:int64", "a=1x2"])
    assert not same_inputs(["a=1x2"], ["b=1x2"])
    assert not same_inputs(["1x2"], ["1x2", "1x2"])


def test_what_no_text_can_make_goes_by_its_class() -> None:
    """An object that is no tensor, list or dictionary is named."""
    pair = namedtuple("pair", "left right")
    fed = Inputs((pair(torch.zeros(1, 2), 3.5), object()))
    assert describe_inputs(fed) == ("[1x2,float]", "object")
