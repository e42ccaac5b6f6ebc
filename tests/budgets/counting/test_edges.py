"""Where counts could go wrong by one: each number here was worked out by hand."""

import logging
import warnings
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from featherpress.budgets import count
from featherpress.budgets.counting.formulas import FORMULAS
from featherpress.budgets.counting.replicas import copy_with
from featherpress.errors import CountError, UsageError

from .does import Does


def m(*shape: int) -> Tensor:
    return torch.empty(shape, device="meta")


LAYER = [m(2, 5, 4), 4, 2, m(12, 4), m(12), m(4, 4), m(4), False, False, 1e-5, m(4), m(4), m(4), m(4)]


@pytest.mark.parametrize(
    ("name", "args", "out", "macs"),
    [
        ("convolution", (m(1, 2, 4, 4), m(3, 2, 3, 3)), m(1, 3, 2, 2), 3 * 4 * 2 * 9),
        ("convolution", (m(1, 2, 4, 4), m(2, 3, 3, 3), None, [1], [0], [1], True), m(1, 3, 6, 6), 32 * 3 * 9),
        ("conv_tbc", (m(5, 2, 3), m(4, 3, 6)), m(2, 2, 6), 2 * 2 * 6 * 4 * 3),
        ("mm", (m(2, 3), m(3, 5)), m(2, 5), 30),
        ("_grouped_mm", (m(2, 3, 5), m(5, 7)), m(3, 7), 3 * 5 * 7),
        ("_grouped_mm", (m(6, 5), m(2, 5, 7)), m(6, 7), 6 * 5 * 7),
        ("_grouped_mm", (m(2, 3, 5), m(2, 5, 7)), m(2, 3, 7), 2 * 3 * 5 * 7),
        ("_grouped_mm", (m(3, 5), m(5, 7)), m(2, 3, 7), 3 * 5 * 7),
        ("_weight_int8pack_mm", (m(2, 3), m(5, 3)), m(2, 5), 30),
        ("addmm", (m(5), m(2, 3), m(3, 5)), m(2, 5), 30),
        ("mv", (m(2, 3), m(3)), m(2), 6),
        ("addmv", (m(2), m(2, 3), m(3)), m(2), 6),
        ("addr", (m(2, 3), m(2), m(3)), m(2, 3), 6),
        ("_trilinear", (m(2, 3), m(5, 3, 4), m(2, 4)), m(2, 5), 2 * 60 + 2 * 5 * 4),
        ("_euclidean_dist", (m(2, 30, 3), m(2, 40, 3)), m(2, 30, 40), 2 * 30 * 40 * 5),
        ("_scaled_dot_product_flash_attention", (m(2, 3, 5, 8), m(2, 3, 7, 8), m(2, 3, 7, 6)), m(1), 210 * 14),
        ("_native_multi_head_attention", (m(2, 5, 4), m(2, 7, 4), m(2, 7, 4), 4), m(1), (80 + 112) * 4 + 2 * 70 * 4),
        ("_transformer_encoder_layer_fwd", [*LAYER, m(8, 4), m(8), m(4, 8), m(4)], m(1), 160 * 4 + 400 + 10 * 64),
        ("mkldnn_rnn_layer", (m(7, 2, 6), m(20, 6), m(20, 5), m(20)), m(1), 14 * (120 + 100)),
    ],
)
def test_formulas_by_hand(name: str, args: Any, out: Tensor, macs: int) -> None:
    """Each formula, given what the dispatcher gives it."""
    assert FORMULAS[f"aten::{name}"](args, out) == macs


@pytest.mark.parametrize(
    ("function", "elements"),
    [
        (lambda s, x: F.relu(x), 12),
        (lambda s, x: x.sum(), 12),
        (lambda s, x: x[:1] + x, 12),
        (lambda s, x: x[:1] * x[:, :1], 12),
        (lambda s, x: F.relu(F.relu(x)[:1]), 12 + 4),
        (lambda s, x: torch.cat([x, x]).reshape(4, 6).t(), 0),
    ],
    ids=["same", "smaller result", "larger second", "larger result", "two", "moved"],
)
def test_elementwise_work_is_the_largest_tensor(function: Any, elements: int) -> None:
    """Of what an operator reads and writes the largest counts, and moving data is free."""
    cost = count(Does(function), torch.zeros(3, 4))
    assert (cost.elementwise, cost.macs) == (elements, 0)


def test_a_deformable_convolution_samples_each_tap_of_each_channel() -> None:
    """4 channels, 9 taps, 5 x 7 places and 2 images; the offsets and the mask are made, not worked out."""
    conv = torchvision.ops.DeformConv2d(4, 6, 3, padding=1)
    model = Does(lambda s, x: s.conv(x, x.new_zeros(2, 18, 5, 7), x.new_zeros(2, 9, 5, 7)), conv=conv)
    assert count(model, torch.zeros(2, 4, 5, 7)).elementwise == 2 * 35 * 4 * 9


def test_an_input_that_is_given_twice_is_held_once() -> None:
    """One map of 16 bytes and the sum; two maps and the sum where they are two."""
    x = torch.zeros(4)
    model = Does(lambda s, a, b: a + b)
    assert [count(model, x, other).peak for other in (x, torch.zeros(4))] == [32, 48]


def test_an_input_is_held_until_its_last_reader() -> None:
    """The second input waits while the first is worked on; one that nobody reads does not."""
    x, y = torch.zeros(4), torch.zeros(4)
    assert count(Does(lambda s, a, b: F.relu(F.relu(a)) + b), x, y).peak == 16 * 3
    assert count(Does(lambda s, a, b: F.relu(F.relu(a + b))), x, y).peak == 16 * 3
    assert count(Does(lambda s, a, b: F.relu(F.relu(a))), x, y).peak == 16 * 2


def test_what_is_given_by_keyword_alone_is_read_too() -> None:
    """At the search there are x, its order (8 bytes an entry), what is looked up, and the places found."""

    def searches(module: nn.Module, x: Tensor) -> Tensor:
        order = x.argsort()
        return torch.searchsorted(x, F.relu(F.relu(x)), sorter=order)

    assert count(Does(searches), torch.zeros(4)).peak == 16 + 32 + 16 + 32


def test_what_a_forward_makes_takes_no_memory() -> None:
    """Four petabytes on the CPU, asked for by name."""
    cost = count(Does(lambda s, x: x @ torch.zeros(10**15, device="cpu")[:8].view(4, 2)), torch.zeros(3, 4))
    assert (cost.macs, cost.method) == (24, "meta")


def test_fake_tensors_meet_those_that_a_function_holds() -> None:
    """A function's own table was not copied with the model: no reason for a real run."""
    table = torch.zeros(4, 2)

    def looks_up(module: nn.Module, x: Tensor) -> Tensor:
        torch._assert(x.device.type == "cpu", "wants a device")
        return x @ table

    cost = count(Does(looks_up), torch.zeros(3, 4))
    assert (cost.macs, cost.method) == (24, "fake")


def test_work_before_the_model_is_called_has_a_row_of_its_own() -> None:
    """A class that does work in `__call__` does it while no module runs."""

    class Calls(nn.Linear):
        def __call__(self, x: Tensor) -> Any:
            return super().__call__(x @ x.new_zeros(4, 4))

    cost = count(Calls(4, 3), torch.zeros(2, 4))
    assert {row.path: row.macs for row in cost.modules} == {"": 24, "(unattributed)": 32}
    with pytest.raises(CountError, match=r"aten::_fft_r2c in module \(unattributed\) \(Transforms\)"):
        count(Transforms(), torch.zeros(2, 4))


class Transforms(nn.Module):
    """Does what has no formula where no module runs."""

    def __call__(self, x: Tensor) -> Any:
        return torch.fft.fft(x)


def test_a_shared_module_goes_by_the_nearest_path() -> None:
    """`a` and `ab` are different parents, and a parent that is shared itself leads to its own path."""
    conv = nn.Conv2d(1, 1, 1, bias=False)

    class Parents(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.ab, self.a = nn.Sequential(conv), nn.Sequential(conv)
            self.outer = nn.Sequential(self.a)

        def forward(self, x: Tensor) -> Any:
            return self.outer(self.a(self.a(x)))

    cost = count(Parents(), torch.zeros(1, 1, 3, 3))
    assert {row.path: row.macs for row in cost.modules if row.macs} == {"a.0": 18, "outer.0.0": 9}
    assert {row.path: row.calls for row in cost.modules if row.calls and row.path} == {
        "a": 2, "a.0": 2, "outer": 1, "outer.0": 1, "outer.0.0": 1,
    }  # fmt: skip


def test_a_subtree_is_a_path_and_what_is_below() -> None:
    """`a` is not `ab`; the empty path is everything; another is an error."""
    model = nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 2)), "ab": nn.Linear(3, 3)})
    cost = count(Does(lambda s, x: s.model["a"](x), model=model), torch.zeros(1, 2))
    assert [cost.subtree(path).params for path in ("model.a", "model.ab", "model", "")] == [6, 12, 18, 18]
    assert (cost.subtree("model.a").calls, cost.subtree("model.a").kind, cost.subtree("model.a.0").flops) == (
        1, "Sequential", 8,
    )  # fmt: skip
    with pytest.raises(KeyError, match=r"model\.b"):
        cost.subtree("model.b")


def test_every_module_is_counted_in_eval_mode() -> None:
    """What the root or one child alone would do in training is not done; the model's own flags stay."""
    trains = Does(lambda s, x: x @ x if s.training else x)
    for root, child in ((True, True), (True, False), (False, True)):
        model = nn.Sequential(trains).train(root)
        trains.train(child)
        assert count(model, torch.zeros(3, 3)).macs == 0
        assert (model.training, trains.training) == (root, child)


def test_what_happens_around_a_forward_stays_as_it_was() -> None:
    """numpy's generator and a logger's level are put back; warnings of the forward are not the user's."""

    def disturbs(module: nn.Module, x: Tensor) -> Tensor:
        np.random.rand()  # noqa: NPY002 - the global generator is meant
        warnings.warn("slow", stacklevel=1)
        return x * float(x.sum())

    logger = logging.getLogger("torch._subclasses.fake_tensor")
    state, level = np.random.get_state()[1].tolist(), logger.level  # noqa: NPY002
    assert count(Does(disturbs), torch.zeros(3)).method == "real"
    assert (np.random.get_state()[1].tolist(), logger.level) == (state, level)  # noqa: NPY002


@pytest.mark.parametrize(
    ("inputs", "error", "sentence"),
    [
        ((), ValueError("one\ntwo"), r"fails on inputs \(none\): one$"),
        ((torch.zeros(()),), ValueError(), r"fails on inputs scalar: ValueError$"),
        ((torch.zeros(1, 2), torch.zeros(3)), SystemExit("gone"), r"fails on inputs 1x2, 3: gone$"),
    ],
)
def test_a_forward_that_fails_is_one_sentence(inputs: Any, error: BaseException, sentence: str) -> None:
    """The shapes and the first line of what was raised, or its type."""

    def fails(module: nn.Module, *inputs: Tensor) -> None:
        raise error

    with pytest.raises(UsageError, match=sentence):
        count(Does(fails), *inputs)


def test_the_first_operator_without_a_formula_is_named() -> None:
    """A model that goes on after it cannot make another the culprit."""

    def goes_on(module: nn.Module, x: Tensor) -> Tensor:
        for function in (torch.fft.fft, lambda x: torch.cdist(x, x)):
            try:
                function(x)
            except CountError:
                continue
        return x

    with pytest.raises(CountError, match="aten::_fft_r2c"):
        count(Does(goes_on), torch.zeros(2, 4))


@pytest.mark.parametrize("kind", [torch.bool, torch.uint8])
def test_masks_depend_on_values_and_places_do_not(kind: torch.dtype) -> None:
    """Core work may follow a look-up by whole numbers; after a mask of either type it is refused."""
    linear = nn.Linear(4, 2, bias=False)
    taken = Does(lambda s, x: s.linear(x[torch.tensor([0, 2])]), linear=linear)
    assert (count(taken, torch.zeros(3, 4)).macs, count(taken, torch.zeros(3, 4)).notes) == (16, ())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CountError, match=r"core work depends on aten::index in \(root\)"):
            count(Does(lambda s, x: s.linear(x[(x[:, 0] == 0).to(kind)]), linear=linear), torch.zeros(3, 4))


def test_readers_and_calls_are_listed() -> None:
    """Which operators read a parameter, and how often each operator ran."""
    model = Does(lambda s, x: F.relu(x @ s.w) * s.w.sum(), w=nn.Parameter(torch.zeros(4, 4)))
    cost = count(model, torch.zeros(2, 4))
    assert cost.readers == {"w": ("aten::mm", "aten::sum")}
    assert cost.operator_calls == {"aten::mm": 1, "aten::relu": 1, "aten::sum": 1, "aten::mul": 1}
    assert cost.work == {("", "aten::mm"): 32}
    assert cost.elementwise_work == {("", "aten::relu"): 8, ("", "aten::sum"): 16, ("", "aten::mul"): 8}


def test_bytes_are_what_a_file_holds() -> None:
    """A buffer that two modules hold is saved once, one that is not persistent never; halves take two bytes."""

    class Holds(nn.Module):
        def __init__(self, buffer: Tensor) -> None:
            super().__init__()
            self.register_buffer("steps", buffer)
            self.register_buffer("scratch", torch.zeros(100), persistent=False)
            self.w = nn.Parameter(torch.zeros(3, dtype=torch.float16))

        def forward(self, x: Tensor) -> Tensor:
            return x

    steps = torch.zeros(5, dtype=torch.int64)
    cost = count(nn.Sequential(Holds(steps), Holds(steps)), torch.zeros(1))
    assert {row.path: row.bytes for row in cost.modules} == {"": 0, "0": 46, "1": 6}
    assert (cost.bytes, cost.unused, cost.unused_names) == (52, 6, ("0.w", "1.w"))
    held = cost.weight_footprint
    assert (held.fp32, held.fp16, held.int8) == (4 * 6 + 40, 2 * 6 + 40, 6 + 40)


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    ("layout", "size"),
    [
        (torch.sparse_coo, 8 * (2 * 3) + 4 * 3),
        (torch.sparse_csr, 8 * (7 + 3) + 4 * 3),
        (torch.sparse_csc, 8 * (7 + 3) + 4 * 3),
        (torch.sparse_bsr, 8 * (4 + 2) + 4 * 8),
        (torch.sparse_bsc, 8 * (4 + 2) + 4 * 8),
    ],
)
def test_a_sparse_tensor_takes_what_it_stores(layout: torch.layout, size: int) -> None:
    """Three numbers, or two blocks of four that hold them, and where they are."""
    dense = torch.zeros(6, 6)
    dense[0, 0] = dense[0, 1] = dense[5, 3] = 1.0
    blocks = {"blocksize": (2, 2)} if layout in {torch.sparse_bsr, torch.sparse_bsc} else {}
    model = Does(lambda s, x: x + s.w.to_dense())
    model.register_buffer("w", dense.to_sparse(layout=layout, **blocks))  # type: ignore[call-overload]
    assert count(model, torch.zeros(6, 6)).bytes == size


def test_a_tied_weight_is_below_the_module_that_holds_all_its_owners() -> None:
    """Two layers of `pair` share 6 numbers: they are the pair's, and neither layer's own."""
    pair = nn.Sequential(nn.Linear(3, 2, bias=False), nn.Linear(3, 2, bias=False))
    pair[1].weight = pair[0].weight
    model = Does(lambda s, x: s.pair[0](x) + s.pair[1](x), pair=pair)
    cost = count(model, torch.zeros(1, 3))
    assert [cost.subtree(path).params for path in ("", "pair", "pair.0", "pair.1")] == [6, 6, 0, 0]


def test_values_that_are_read_are_noted_and_nothing_else() -> None:
    """In a real run one note tells of the branch; adding and comparing read no value."""

    def branches(module: nn.Module, x: Tensor) -> Tensor:
        return x @ x if float((x + 1).sum()) > 0 else x

    cost = count(Does(branches), torch.zeros(3, 3))
    assert cost.method == "real"
    assert len(cost.notes) == 1
    assert "reads a value" in cost.notes[0]


def test_a_generator_is_copied_with_its_state() -> None:
    """A model that draws from a generator of its own gets a copy, and both draw the same."""
    generator = torch.Generator().manual_seed(3)
    expected = torch.rand(2, generator=torch.Generator().manual_seed(3))
    twin = copy_with(Does(lambda s, x: x, own=generator), lambda tensor: tensor, {}).own
    assert twin is not generator
    assert torch.equal(torch.rand(2, generator=twin), expected)
    assert torch.equal(torch.rand(2, generator=generator), expected)


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(2, 4, 2), nn.Conv2d(2, 4, 2).half(), nn.ConvTranspose2d(2, 4, 1, padding=1)]
)
def test_a_kernel_without_a_place_is_refused(layer: nn.Module) -> None:
    """Some PyTorch answers on meta tensors with an empty map, which would be no work; no number comes of it."""
    x = torch.zeros(1, 2, 1, 1, dtype=layer.weight.dtype)
    with pytest.raises(UsageError, match="fails on inputs 1x2x1x1"):
        count(layer, x)


def test_a_compiled_part_counts_as_it_was_written() -> None:
    """Under the names that it had before; keywords reach a batch norm too."""

    def forward(module: Any, x: Tensor) -> Tensor:
        norms = {"weight": None, "bias": None, "running_mean": module.zero, "running_var": module.one}
        return torch.batch_norm(module.part(x), **norms, training=False, momentum=0.1, eps=1e-5, cudnn_enabled=False)

    part: Any = torch.compile(nn.Linear(8, 4))
    cost = count(Does(forward, part=part, zero=torch.zeros(4), one=torch.ones(4)), torch.zeros(2, 8))
    assert (cost.method, cost.macs, cost.subtree("part").params) == ("meta", 64, 36)
    assert "part.weight" in cost.readers
