"""Where a count depends on values, or work is done that no operator does: counted, noted or refused, never silent."""

import asyncio
import copy
import ctypes
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, partial, reduce
from importlib import import_module
from multiprocessing.pool import ThreadPool
from pathlib import Path
from threading import Thread
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.utils.prune
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence
from torch.utils._python_dispatch import _disable_current_modes

from featherpress.budgets import count
from featherpress.budgets.files.weights import count_weights, read_safetensors_header
from featherpress.errors import CountError, UsageError
from featherpress.models.layers.deformable import DeformableConv

from .does import Does


def memory(tensor: Tensor) -> Any:
    """The numbers of a tensor as another language would see them."""
    address = tensor.untyped_storage().data_ptr()
    if not address:
        raise RuntimeError("no memory")
    return (ctypes.c_float * tensor.numel()).from_address(address)


def kernel(x: Tensor, w: Tensor, y: Tensor) -> Tensor:
    """A linear layer that no dispatcher sees."""
    a, b, c = map(memory, (x, w, y))
    inner, columns = x.shape[1], w.shape[0]
    for i in range(len(c)):
        c[i] = sum(a[i // columns * inner + k] * b[i % columns * inner + k] for k in range(inner))
    return y


def scale(x: Tensor, w: Tensor) -> Tensor:
    """Work in place, by a weight."""
    numbers, factors = memory(x), memory(w)
    for i in range(len(numbers)):
        numbers[i] *= factors[0]
    return x


@pytest.mark.parametrize(
    "forward",
    [
        lambda s, x: kernel(s.layer(x), s.w, torch.zeros(2, 16)),
        lambda s, x: kernel(s.layer(x), s.w, torch.empty(2, 16)),
        lambda s, x: kernel(s.layer(x), s.w, s.layer(x).repeat(1, 2)) * 2,
        lambda s, x: scale(s.layer(x), s.w) + 1,
        lambda s, x: torch.from_numpy(s.layer(x).detach().numpy() @ s.w.detach().numpy().T),
        lambda s, x: np.matmul(s.layer(x).detach(), s.w.detach().T),
        lambda s, x: torch.from_dlpack(np.from_dlpack(s.layer(x).detach()) @ np.from_dlpack(s.w.detach().T)),
        lambda s, x: s.layer(x) * (s.w.data_ptr() != 0),
        lambda s, x: s.layer(x) * ((x * 2).data_ptr() != 0),
    ],
    ids=["zeros", "empty", "memory in use", "in place", "numpy", "array", "dlpack", "address", "address of a result"],
)
def test_work_that_no_operator_does_is_refused(forward: Callable[..., Any]) -> None:
    """A kernel in an extension, work in numpy or at an address would be a silent zero."""
    model = Does(forward, layer=nn.Linear(8, 8), w=nn.Parameter(torch.randn(16, 8)))
    with pytest.raises(CountError) as caught:
        count(model, torch.randn(2, 8))
    assert caught.value.exit_code == 3


def test_what_nobody_reads_is_no_reason_to_refuse() -> None:
    """In a real run a weight, an input and a result may be left over, where the output does not depend on them."""

    def forward(module: Any, x: Tensor, other: Tensor) -> Any:
        module.layer(x)
        return module.layer(x) * float(torch.ones(()).item() * x.sum())

    model = Does(forward, layer=nn.Linear(8, 8), w=nn.Parameter(torch.randn(16, 8)))
    cost = count(model, torch.randn(2, 8), torch.randn(3))
    assert (cost.macs, cost.method, cost.unused) == (256, "real", 128)


def test_work_left_out_for_zeros_is_refused() -> None:
    """Zeros stand for values that were not given; where others cost more, one has to give them."""
    model = Does(lambda s, x: s.layer(x) if x.any() else x, layer=nn.Linear(8, 8))
    with pytest.raises(CountError, match="other work where its inputs are not all zero"):
        count(model, torch.zeros(2, 8))
    cost = count(model, torch.ones(2, 8))
    assert cost.macs == 128
    assert "reads a value" in cost.notes[0]


@pytest.mark.parametrize(("lengths", "steps"), [([5, 5, 5], 15), ([5, 1, 1], 7)])
def test_packed_lengths_are_counted_and_noted(lengths: list[int], steps: int) -> None:
    """Lengths that are given are worked on, and a note says that others cost otherwise."""

    def forward(module: Any, words: Tensor, lengths: Tensor) -> Any:
        return module.cells(pack_padded_sequence(words, lengths))[1][0]

    cost = count(Does(forward, cells=nn.LSTM(8, 4)), torch.randn(5, 3, 8), torch.tensor(lengths))
    assert cost.macs == steps * 4 * 4 * (8 + 4)
    assert any("_pack_padded_sequence" in note for note in cost.notes)


def test_a_packed_sequence_can_be_fed() -> None:
    """Lengths 7, 3 and 1 are 11 steps."""
    packed = pack_sequence([torch.zeros(7, 6), torch.zeros(3, 6), torch.zeros(1, 6)])
    cost = count(Does(lambda s, x: s.cells(x)[0].data, cells=nn.LSTM(6, 5)), packed)
    assert (cost.macs, cost.method) == (11 * 4 * 5 * 11, "meta")
    assert "lengths" in cost.notes[0]


@dataclass
class Pair:
    """Two tensors under names."""

    features: Tensor
    scores: Tensor


class Plain:
    """Two tensors in an object."""

    def __init__(self, features: Tensor, scores: Tensor) -> None:
        self.features, self.scores = features, scores


@pytest.mark.parametrize("kind", [Pair, Plain])
def test_tensors_in_objects_belong_to_the_peak(kind: Any) -> None:
    """In a dataclass or an object, going in or out, tensors take the memory that they take in a tuple."""
    parts = {"stem": nn.Conv2d(3, 32, 1), "head": nn.Conv2d(32, 32, 1)}

    def forward(module: Any, images: Any) -> Any:
        wrapped = isinstance(images, kind)
        features = module.stem(images.features if wrapped else images[0])
        scores = module.head(module.head(module.head(features))).mean((2, 3))
        return kind(features, scores) if wrapped else (features, scores)

    given = torch.randn(1, 3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool)
    plain, wrapped = count(Does(forward, **parts), given), count(Does(forward, **parts), kind(*given))
    assert (wrapped.peak, wrapped.inputs) == (plain.peak, plain.inputs)


def test_a_product_that_only_follows_in_time_is_counted() -> None:
    """A graph convolution drops self-loops by a mask over edges; the product is over nodes, however many edges stay."""

    def forward(module: Any, nodes: Tensor, edges: Tensor) -> Any:
        edges = edges[:, edges[0] != edges[1]]
        nodes = module.layer(nodes)
        return torch.zeros_like(nodes).index_add(0, edges[1], nodes[edges[0]])

    edges = torch.tensor([[0, 1, 2], [0, 2, 1]])
    cost = count(Does(forward, layer=nn.Linear(8, 4)), torch.zeros(6, 8), edges)
    assert (cost.macs, cost.method) == (192, "meta")
    assert "no core work depends on it" in cost.notes[0]


def test_a_size_that_goes_by_way_of_python_is_followed() -> None:
    """Rows made by the number of places found depend on values, though no operator hands the size on."""

    def forward(module: Any, x: Tensor) -> Any:
        return module.layer(torch.ones((x > 0).nonzero().shape[0], 8))

    with pytest.raises(CountError, match=r"core work depends on aten::nonzero"):
        count(Does(forward, layer=nn.Linear(8, 4)), torch.randn(6, 8))


def test_one_that_is_found_does_not_stand_for_any_number() -> None:
    """A forward that fails where nothing is found is compared with one that finds another number, not as many."""

    def forward(module: Any, x: Tensor) -> Any:
        assert float(x.sum()) > 0
        return module.layer(x[(x[:, 0] > 0).nonzero()[:, 0]]).max(0)

    with pytest.raises(CountError, match=r"core work depends on aten::nonzero"):
        count(Does(forward, layer=nn.Linear(8, 4)), torch.eye(8)[:3])


class Experts(nn.Module):
    """Each row goes to two of four experts."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(8, 4, bias=False)
        self.up, self.down = nn.Parameter(torch.randn(4, 32, 8)), nn.Parameter(torch.randn(4, 8, 32))

    def forward(self, x: Tensor) -> Tensor:
        top = self.router(x).topk(2).indices
        out = torch.zeros_like(x)
        for e in range(self.router.out_features):
            rows = (top == e).any(-1).nonzero().squeeze(-1)
            self.add(e, rows, x, out)
        return out

    def add(self, e: int, rows: Tensor, x: Tensor, out: Tensor) -> None:
        out.index_add_(0, rows, (x[rows] @ self.up[e].T).relu() @ self.down[e].T)


@pytest.mark.parametrize("x", [torch.randn(16, 8), torch.zeros(16, 8)], ids=["values", "zeros"])
def test_a_mixture_of_experts_does_fixed_work(x: Tensor) -> None:
    """16 rows, two experts each, and the router; a note says that the sum is fixed, and half the experts are active."""
    cost = count(Experts(), x)
    assert cost.macs == 16 * 2 * 512 + 16 * 8 * 4
    assert (cost.params, cost.active) == (2080, 1056)


class Modules(Experts):
    """The same, by a module for each expert."""

    def __init__(self, experts: int = 4) -> None:
        super().__init__()
        del self.up, self.down
        self.router = nn.Linear(8, experts, bias=False)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(8, 32, bias=False), nn.ReLU(), nn.Linear(32, 8, bias=False)) for _ in range(experts)
        )

    def add(self, e: int, rows: Tensor, x: Tensor, out: Tensor) -> None:
        if len(rows):
            out.index_add_(0, rows, self.experts[e](x[rows]))


@pytest.mark.parametrize("x", [torch.randn(16, 8), torch.zeros(16, 8)], ids=["values", "zeros"])
def test_experts_that_are_modules_do_fixed_work_together(x: Tensor) -> None:
    """A note says that the rows of each are those of one input."""
    cost = count(Modules(), x)
    assert cost.macs == 16 * 2 * 512 + 16 * 8 * 4
    assert (cost.params, cost.active) == (2080, 1056)
    assert "; which modules do it depends on values" in cost.notes[0]


def test_an_expert_that_no_row_goes_to_is_active_as_the_others_are() -> None:
    """Two rows reach few of 40 experts, whatever their values."""
    cost = count(Modules(40), torch.randn(2, 8))
    assert (cost.params, cost.active) == (40 * 8 + 40 * 512, 40 * 8 + 2 * 512)


def test_a_padded_nested_tensor_is_counted_by_what_it_does() -> None:
    """Eight rows in all."""

    def forward(module: Any, some: Tensor, others: Tensor) -> Tensor:
        rows = torch.nested.nested_tensor([some, others], layout=torch.jagged)
        padded: Tensor = module.layer(rows).to_padded_tensor(0.0)
        return padded

    assert count(Does(forward, layer=nn.Linear(8, 4)), torch.ones(3, 8), torch.ones(5, 8)).macs == 8 * 8 * 4


def test_constants_of_a_library_are_read_and_not_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a forward finds them by importing, as the tables of a solver, they were there before the count."""
    library = ModuleType("library")
    vars(library)["table"] = torch.ones(8)
    monkeypatch.setitem(sys.modules, "library", library)

    def read(module: Any, x: Tensor) -> Tensor:
        x.sum().item()
        table: Tensor = import_module("library").table
        return module.layer(x * table[:4].repeat(2) + table)

    def write(module: Any, x: Tensor) -> Tensor:
        import_module("library").table.add_(1)
        return read(module, x)

    assert count(Does(read, layer=nn.Linear(8, 8)), torch.ones(2, 8)).macs == 128
    with pytest.raises(CountError, match="that no operator made"):
        count(Does(write, layer=nn.Linear(8, 8)), torch.ones(2, 8))


def test_memory_of_the_largest_is_said() -> None:
    """Also where no core work follows."""
    cost = count(Does(lambda s, x: s.layer(x)[x > 0] * 2, layer=nn.Linear(8, 8)), torch.randn(4, 8))
    assert cost.notes[0].endswith("no core work follows it, and memory is of the largest")
    assert cost.method == "meta"


class ModulesOfExperts(nn.Module):
    """Each row goes to one of eight experts, each a module, after a dense layer; `way` hands the rows out."""

    def __init__(self, way: Callable[[Tensor, Tensor, nn.ModuleList], Tensor]) -> None:
        super().__init__()
        self.way, self.dense, self.router = way, nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
        self.experts = nn.ModuleList(nn.Sequential(nn.Linear(8, 8, bias=False)) for _ in range(8))

    def forward(self, x: Tensor) -> Tensor:
        x = self.dense(x)
        return self.way(x, self.router(x).topk(1).indices[:, 0], self.experts)


def by_mask(x: Tensor, top: Tensor, experts: nn.ModuleList) -> Tensor:
    out = torch.zeros_like(x)
    for e in range(8):
        out[top == e] += experts[e](x[top == e])
    return out


def by_name(x: Tensor, top: Tensor, experts: nn.ModuleList) -> Tensor:
    out = torch.zeros_like(x)
    for e in top.unique().tolist():
        out[top == e] = experts[e](x[top == e])
    return out


def by_sorting(x: Tensor, top: Tensor, experts: nn.ModuleList) -> Tensor:
    parts = x[top.argsort()].split(torch.bincount(top, minlength=8).tolist())
    return torch.cat([expert(part) for expert, part in zip(experts, parts, strict=True)])


@pytest.mark.parametrize("x", [torch.randn(4, 8), torch.zeros(4, 8)], ids=["values", "zeros"])
@pytest.mark.parametrize("way", [by_mask, by_name, by_sorting])
def test_experts_that_are_modules_do_fixed_work(way: Any, x: Tensor) -> None:
    """Which of them works differs with values; one of eight is active, also where most were never chosen."""
    cost = count(ModulesOfExperts(way), x)
    assert cost.macs == 3 * 4 * 64
    assert (cost.params, cost.active) == (10 * 64, 3 * 64)
    assert any("which modules do it depends on values" in note for note in cost.notes)


def test_an_expert_for_each_row_does_fixed_work_for_zeros_too() -> None:
    """Zeros go to one expert, other values to several, and the sum is the same."""

    def way(x: Tensor, top: Tensor, experts: nn.ModuleList) -> Tensor:
        return torch.stack([experts[int(top[row])](x[row]) for row in range(len(x))])

    assert count(ModulesOfExperts(way), torch.zeros(4, 8)).macs == 3 * 4 * 64


def test_only_what_ran_has_shapes() -> None:
    """Also where a real run looked at the weights that no operator reads."""
    reads = Does(lambda s, x: s.layer(x) if float(x.sum()) < 1 else x, layer=nn.Linear(4, 4), idle=nn.Linear(4, 4))
    cost = count(reads, torch.zeros(1, 4))
    assert (cost.method, [*cost.shapes]) == ("real", ["", "layer"])


@pytest.mark.needs_torch("2.8", "_grouped_mm")
def test_a_grouped_product_needs_no_half_precision() -> None:
    """10 rows by 8 x 16, also where the model is too large to be run."""
    with torch.device("meta"):
        weight = nn.Parameter(torch.empty(4, 8, 16))
    model = Does(lambda s, x: torch._grouped_mm(x, s.w, offs=torch.arange(4, dtype=torch.int32)), w=weight)
    cost = count(model, torch.zeros(10, 8))
    assert cost.macs == 1280
    assert "how many experts a token goes to is not known: all count as active" in cost.notes


@pytest.mark.parametrize(("name", "value", "other"), [("fused_attn", True, 128), ("use_flash", False, 256)])
def test_another_path_is_noted_with_its_cost(name: str, value: bool, other: int) -> None:
    """Where a switch chooses between a fused operator and its parts, the number is that of the switch as it is."""

    def forward(module: Any, x: Tensor) -> Any:
        return module.layer(x) if getattr(module, name) else module.layer(x) + module.layer(x)

    cost = count(Does(forward, layer=nn.Linear(8, 8), **{name: not value}), torch.zeros(2, 8))
    assert cost.notes == (f"{name} is {not value}: the other way costs {other:,} MACs",)


@pytest.mark.parametrize(
    ("model", "x", "sentence"),
    [
        (lambda: nn.Linear(3, 4), torch.zeros(2, 5), "Linear fails on inputs 2x5: .*same reduction dim"),
        (lambda: Does(lambda s, x: s.layer(x).bad, layer=nn.Linear(5, 5)), torch.zeros(2, 5), "no attribute 'bad'"),
        (lambda: Does(lambda s, x: s.layer(x).sum().item(), layer=nn.Linear(5, 5)), torch.zeros(2, 5), "reads values"),
    ],
)
def test_what_fails_on_meta_says_why(model: Callable[[], nn.Module], x: Tensor, sentence: str) -> None:
    """A model without values is said to read them only where it does."""
    with torch.device("meta"):
        made = model()
    with pytest.raises(UsageError, match=sentence):
        count(made, x)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support")
def test_sparse_inputs_cost_what_they_store() -> None:
    """Six entries by three columns, in either layout and on either side."""
    sparse = torch.eye(6).to_sparse()
    for left in (sparse, sparse.to_sparse_csr()):
        assert count(Does(lambda s, x, y: x @ y), left, torch.randn(6, 3)).macs == 18
    assert count(nn.Linear(6, 3), sparse).macs == 18
    assert count(Does(lambda s, x: s.layer(x.to_dense()), layer=nn.Linear(6, 3)), sparse).macs == 108

    def place(module: Any, rows: Tensor, columns: Tensor, x: Tensor) -> Tensor:
        rows = torch._convert_indices_from_coo_to_csr(rows, 6)
        return torch.sparse_csr_tensor(rows, columns, torch.ones(2), (6, 6)) @ x

    assert count(Does(place), torch.tensor([1, 4]), torch.tensor([0, 2]), torch.randn(6, 3)).macs == 6


@pytest.mark.filterwarnings("ignore:Sparse")
@pytest.mark.parametrize(
    ("forward", "macs"),
    [
        (lambda w, x: torch.sparse.mm(w.to_sparse(), x), 12 * 3),
        (lambda w, x: w.to_sparse_csr() @ x, 12 * 3),
        (lambda w, x: torch.sparse.mm(w.to_sparse_csr(), x, "mean"), 12 * 3),
        (lambda w, x: torch.mv(w.to_sparse_csr(), x[:, 0]), 12),
        (lambda w, x: torch.addmv(x[:, 1], w.to_sparse_csr(), x[:, 0]), 12),
        (lambda w, x: w.to_sparse_bsr((2, 2)) @ x, 6 * 4 * 3),
        (lambda w, x: x.T @ w.to_sparse_bsc((2, 2)), 6 * 4 * 3),
        (lambda w, x: torch.bmm(w[None].to_sparse(), x[None]), 12 * 3),
        (lambda w, x: (w.to_sparse_csr() @ torch.eye(6).to_sparse_csr()).to_dense() + x.sum(), 12),
        (lambda w, x: (w.to_sparse_csc() @ w.T.to_sparse_csr()).to_dense() + x.sum(), 2 * 6 * 6),
        (lambda w, x: torch.sparse_coo_tensor(torch.zeros(2, 9).long(), torch.ones(9), (6, 6)).coalesce() @ x, 3),
    ],
)
def test_what_is_made_sparse_costs_what_it_stores(forward: Any, macs: int) -> None:
    """Tensors without values store nothing: without a real run that would be a silent zero."""
    weight = torch.zeros(6, 6)
    weight[:, [0, 3]] = torch.rand(6, 2) + 1
    cost = count(Does(lambda s, x: forward(s.w, x), w=nn.Parameter(weight)), torch.ones(6, 3))
    assert (cost.macs, cost.method) == (macs, "real")
    assert any("stores as much as values say" in note for note in cost.notes)


def test_inputs_made_sparse_have_to_be_given() -> None:
    """Zeros that stand for an input store nothing: other inputs do, and the count is refused."""
    model = Does(lambda s, x: torch.sparse.mm(x.to_sparse(), x))
    with pytest.raises(CountError, match="other work where its inputs are not all zero"):
        count(model, torch.zeros(4, 4))
    assert count(model, torch.eye(4)).macs == 16


def in_a_thread(module: Any, x: Tensor) -> Tensor:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(F.linear, x, module.layer.weight).result()


def into(module: Any, x: Tensor, y: Tensor) -> Tensor:
    with torch.no_grad():
        return y.addmm_(x, module.layer.weight)


def in_a_thread_in_place(module: Any, x: Tensor) -> Tensor:
    y = module.layer(x)
    thread = Thread(target=into, args=(module, x, y))
    thread.start()
    thread.join()
    return y


def in_a_pool_in_place(module: Any, x: Tensor) -> Tensor:
    y = module.layer(x)
    with ThreadPool(1) as pool:
        pool.apply(into, (module, x, y))
    return y


def in_a_loops_thread(module: Any, x: Tensor) -> Tensor:
    return asyncio.run(asyncio.to_thread(into, module, x, x * 2))


def in_an_older_pool(module: Any, x: Tensor) -> Tensor:
    return POOL.submit(into, module, x, x * 2).result()


def handed(hand: Callable[..., Any]) -> Callable[[Any, Tensor], Tensor]:
    """Hand work on a tensor of the forward to threads that were there before."""

    def forward(module: Any, x: Tensor) -> Tensor:
        y: Tensor = module.layer(x)
        hand(partial(into, module, x), y)
        return y

    return forward


POOL = ThreadPoolExecutor(1)
POOL.submit(str).result()


@cache
def other_pool() -> ThreadPool:
    return ThreadPool(1)


@pytest.fixture(scope="module", autouse=True)
def _older() -> Iterator[None]:
    """Let the other pool be there before any count, and end after the last."""
    with other_pool():
        yield


def below_all_modes(module: Any, x: Tensor) -> Tensor:
    with _disable_current_modes():  # type: ignore[no-untyped-call]
        return F.linear(x, module.layer.weight)


IN_THREADS = [
    in_a_thread, in_a_thread_in_place, in_a_pool_in_place, in_a_loops_thread, in_an_older_pool,
    handed(lambda work, y: other_pool().apply(work, (y,))),
    handed(lambda work, y: other_pool().map(func=work, iterable=[y])),
    handed(lambda work, y: next(other_pool().imap(work, [y]))),
    handed(lambda work, y: next(other_pool().imap_unordered(work, [y]))),
]  # fmt: skip


@pytest.mark.parametrize("forward", IN_THREADS)
@pytest.mark.parametrize("reads", [False, True])
def test_operators_in_other_threads_are_refused(forward: Any, reads: bool) -> None:
    """Whether it returns a tensor or writes into one, the product there would be a silent zero."""
    model = Does(lambda s, x: forward(s, x) * (x.sum().item() if reads else 1), layer=nn.Linear(8, 8))
    with pytest.raises(CountError, match=r"mm runs in a thread of its own"):
        count(model, torch.zeros(1, 8))
    assert model(torch.zeros(1, 8)).shape == (1, 8)


def test_a_thread_that_moves_data_is_no_reason_to_refuse() -> None:
    """Nor one that does nothing with tensors; and both go on as they were afterwards."""
    ways = Thread.start, ThreadPoolExecutor.submit, ThreadPool.apply_async, ThreadPool.imap

    def forward(module: Any, x: Tensor) -> Tensor:
        POOL.submit(x.clone).result()
        other_pool().apply(x.clone)
        return module.layer(x)

    assert count(Does(forward, layer=nn.Linear(8, 8)), torch.zeros(1, 8)).macs == 64
    assert (Thread.start, ThreadPoolExecutor.submit, ThreadPool.apply_async, ThreadPool.imap) == ways


@pytest.mark.parametrize("forward", [below_all_modes])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_results_that_no_operator_made_are_refused(forward: Any, device: str) -> None:
    """Operators are seen in the thread of the forward alone: what it returns from elsewhere would be a silent zero."""
    model = Does(forward, layer=nn.Linear(8, 8)).to(device)
    with pytest.raises(CountError, match="returns a tensor that no operator made"):
        count(model, torch.zeros(1, 8, device=device))


@pytest.mark.parametrize("after", [lambda y, x: y * 2, lambda y, x: x * y.sum().item(), lambda y, x: x + y[0, 0]])
@pytest.mark.parametrize("forward", [below_all_modes])
def test_results_that_no_operator_made_are_refused_where_they_are_read(forward: Any, after: Any) -> None:
    """Where the forward goes on with what was made elsewhere, the product there would be a silent zero."""
    model = Does(lambda s, x: after(forward(s, x), x), layer=nn.Linear(8, 8))
    with pytest.raises(CountError, match="reads a tensor that no operator made"):
        count(model, torch.zeros(1, 8))


def far(x: Tensor) -> bool:
    return x.device.type not in {"cpu"}


def is_on(x: Tensor, name: str = "cpu") -> bool:
    return name == "cpu"


HERE = torch.device("cpu")
TIMES = {"cpu": True, "meta": False}


def by_variables(module: Any, x: Tensor) -> bool:
    here = "cpu"
    where = x.device.type
    kind = torch.device(here)
    return where == here or x.device == kind


class Asker:
    """An object of a model that asks."""

    def here(self, x: Tensor) -> bool:
        return x.device.type == "cpu"


class Twice(nn.Module):
    """Does its work twice where `ask` says so."""

    there = "meta"

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)

    @property
    def where(self) -> str:
        return self.layer.weight.device.type

    def ask(self, x: Tensor) -> bool:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Any:
        return self.layer(self.layer(x) if self.ask(x) else x)


@pytest.mark.parametrize(
    ("ask", "method"),
    [
        (lambda s, x: x.is_cpu, "fake"),
        (lambda s, x: not x.is_meta, "fake"),
        (lambda s, x: x.device.type == "cpu", "fake"),
        (lambda s, x: x.device == torch.device("cpu"), "fake"),
        (lambda s, x: str(s.layer.weight.device) == "cpu", "fake"),
        (lambda s, x: x.device.type in {"cpu", "mps"}, "fake"),
        (lambda s, x: "meta" not in str(x.device), "fake"),
        (lambda s, x: any(each.device.type == "cpu" for each in s.parameters()), "fake"),
        (lambda s, x: not far(x), "fake"),
        (lambda s, x: str(x.device).startswith("cpu"), "fake"),
        (lambda s, x: x.device == HERE, "fake"),
        (lambda s, x: x.device.type != s.there, "fake"),
        (lambda s, x: s.where == "cpu", "fake"),
        (lambda s, x: TIMES[x.device.type], "fake"),
        (by_variables, "fake"),
        (lambda s, x: is_on(x), "meta"),
        (lambda s, x: x.device.type != "mps", "meta"),
        (lambda s, x: x.device == s.layer.weight.device, "meta"),
        (lambda s, x: not x.is_cuda and torch.zeros(1, device="cpu").device is not None, "meta"),
    ],
)
def test_a_forward_that_asks_for_the_cpu_is_told(ask: Any, method: str) -> None:
    """On meta it would go the way of another device, and the count would be of that."""
    cost = count(type("Asks", (Twice,), {"ask": ask})(), torch.zeros(2, 8))
    assert (cost.macs, cost.method) == (256, method)
    assert count(type("Asks", (Twice,), {"ask": ask})().to("meta"), torch.zeros(2, 8, device="meta")).method == "meta"


@pytest.mark.parametrize("held", [lambda x: x.device.type == "cpu", Asker().here, partial(Asker.here, Asker())])
def test_a_function_that_a_model_holds_and_asks_for_the_cpu_is_told(held: Any) -> None:
    """Code that no class of modules leads to is looked at too, that of an object as well."""
    model = Does(lambda s, x: s.layer(s.layer(x) if s.held(x) else x), layer=nn.Linear(8, 8), held=held)
    cost = count(model, torch.zeros(2, 8))
    assert (cost.macs, cost.method) == (256, "fake")


def test_our_deformable_layer_does_the_same_work_on_every_device() -> None:
    """On CPUs it samples and multiplies, elsewhere it is one operator: a count on meta stands for both."""
    for layer in (DeformableConv(8, 16), DeformableConv(16, 8), DeformableConv(8, 8, groups=2)):
        x = torch.zeros(1, layer.offset.in_channels, 6, 6)
        real = Does(lambda s, x: s.layer(x) * float(x.sum().item() == 0), layer=layer)
        costs = count(layer, x), count(real, x)
        assert [cost.method for cost in costs] == ["meta", "real"]
        assert costs[0].macs == costs[1].macs


def made_of_numbers(module: Any, x: Tensor) -> Tensor:
    sums = torch.tensor([1.0] * 8, device=x.device) + torch.as_tensor([2.0] * 8, device=x.device) + x.new_tensor([3.0])
    out = torch.empty(0, device=x.device)
    torch.mm(x, module.layer.weight, out=out)
    return module.layer(out + sums)  # type: ignore[no-any-return]


def made_of_memory(module: Any, x: Tensor) -> Tensor:
    numbers = torch.from_numpy(np.ones(8, np.float32)) + torch.frombuffer(bytearray(32), dtype=torch.float32)
    numbers = numbers + torch.from_dlpack(np.ones(8, np.float32))
    layer = copy.deepcopy(module.layer) if x.sum().item() else module.layer
    return layer(layer(x + numbers + torch.asarray(np.ones(8, np.float32))))  # type: ignore[no-any-return]


@pytest.mark.parametrize(("forward", "method"), [(made_of_numbers, "meta"), (made_of_memory, "real")])
def test_tensors_of_numbers_are_made_by_no_operator(forward: Any, method: str) -> None:
    """What a forward makes of numbers, arrays and copies hides no work."""
    cost = count(Does(forward, layer=nn.Linear(8, 8)), torch.ones(2, 8))
    assert (cost.macs, cost.method) == (256, method)


def read_memory(x: Tensor) -> None:
    assert x.untyped_storage().data_ptr()


def read_array(x: Tensor) -> Any:
    return np.asarray(x)


def read_other(x: Tensor) -> Any:
    return np.from_dlpack(x)


@pytest.mark.parametrize(
    "ask", [bool, Tensor.item, Tensor.tolist, Tensor.nonzero, lambda x: x.numpy(), read_memory, read_array, read_other]
)
def test_a_forward_that_catches_the_want_of_values_is_run_with_them(ask: Any) -> None:
    """Tensors without values fail, and a model that has an answer to that does other work with values."""

    def forward(module: Any, x: Tensor) -> Any:
        try:
            ask((x - 1).sum())
        except Exception:
            return module.layer(x)
        return module.layer(module.layer(x))

    cost = count(Does(forward, layer=nn.Linear(8, 8)), torch.zeros(2, 8))
    assert cost.macs == 256


def test_constants_without_values_may_be_returned() -> None:
    """What the model or its surroundings hold on the meta device was not made unseen; nor what it makes of numbers."""
    held, kept = torch.ones(8, device="meta"), [torch.ones(8, device="meta")]

    def forward(module: Any, x: Tensor) -> Any:
        return module.layer(x), held, module.kept[0], module.layer.bias, x

    model = Does(forward, layer=nn.Linear(8, 8)).to("meta")
    model.kept = kept
    assert count(model, torch.zeros(1, 8, device="meta")).macs == 64
    loss = Does(lambda s, x: (s.layer(x), torch.tensor(0.0, device=x.device)), layer=nn.Linear(8, 8))
    assert count(loss, torch.zeros(1, 8)).macs == 64


async def later(module: Any, x: Tensor) -> Tensor:
    return module.layer(x)  # type: ignore[no-any-return]


@pytest.mark.filterwarnings("ignore:coroutine")
@pytest.mark.parametrize(
    ("forward", "what"),
    [
        (lambda s, x: (s.layer(x) for _ in range(3)), "generator"),
        (lambda s, x: map(s.layer, [x]), "map"),
        (later, "coroutine"),
        (lambda s, x: (x, lambda: s.layer(x)), "function"),
        (lambda s, x: [x, s.layer.forward], "method"),
        (lambda s, x: partial(s.layer, x), "partial"),
    ],
)
def test_work_that_is_put_off_is_refused(forward: Any, what: str) -> None:
    """What is done when the result is read, awaited or called would be a silent zero."""
    with pytest.raises(CountError, match=f"returns a {what}, whose work is done after it"):
        count(Does(forward, layer=nn.Linear(8, 8)), torch.zeros(1, 8))


def test_exported_programs_and_scaled_products_are_counted() -> None:
    """An exported program goes as its module; products in eight bits as products."""
    program = torch.export.export(nn.Sequential(nn.Linear(4, 3)), (torch.zeros(2, 4),))
    assert count(program, torch.zeros(2, 4)).macs == 24  # type: ignore[arg-type]

    def forward(module: Any, x: Tensor, y: Tensor) -> Any:
        one, rowless = torch.ones(()), F.ScalingType.TensorWise
        left, right = (each.to(torch.float8_e4m3fn) for each in (x, y))
        return F.scaled_mm(left, right.t(), one, rowless, one, rowless)

    if hasattr(F, "scaled_mm"):
        assert count(Does(forward), torch.zeros(32, 32), torch.zeros(32, 32)).macs == 32**3


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
@pytest.mark.parametrize("options", [{}, {"bidirectional": True}, {"num_layers": 2, "batch_first": True}])
def test_recurrent_layers_are_one_operator(kind: Any, options: Any) -> None:
    """The closed form is what the steps sum to, and its results have their shapes."""
    layer, x = kind(6, 5, **options), torch.randn(7, 2, 6)
    cost = count(layer, x)
    real = count(Does(lambda s, x: (x.sum().item(), s.layer(x))[1], layer=layer), x)
    assert (cost.macs, real.method) == (real.macs, "real")
    assert len(cost.operator_calls) < 6
    shapes = Does(lambda s, x: torch.cat([s.layer(x)[0].flatten(), s.layer(x)[1][0].flatten()]), layer=layer)
    assert count(shapes, x).activations > 0


def slope(module: Any, x: Tensor) -> Any:
    """The gradient of a sum, for the input and for all weights."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        return torch.autograd.grad(module.net(x).sum(), (x, *module.net.parameters()))


@pytest.mark.parametrize(
    ("net", "shape", "macs"),
    [
        (nn.Sequential(nn.Conv2d(4, 6, 3), nn.GroupNorm(2, 6), nn.MaxPool2d(2)), (1, 4, 8, 8), 3 * 36 * 6 * 36),
        (nn.Sequential(nn.ConvTranspose2d(4, 6, 3, 2), nn.Hardswish()), (1, 4, 5, 5), 3 * 25 * 4 * 6 * 9),
        (nn.Sequential(nn.Conv1d(4, 6, 3, groups=2), nn.Softmax(1), nn.AvgPool1d(2)), (1, 4, 8), 3 * 6 * 6 * 6),
        (nn.Sequential(nn.Linear(4, 6), nn.LayerNorm(6), nn.Softplus(), nn.Upsample(3)), (2, 3, 4), 3 * 6 * 24),
    ],
)
def test_what_a_forward_differentiates_costs_its_products(net: nn.Module, shape: Any, macs: int) -> None:
    """The gradients of image and weight cost what the convolution costs; those of norms and pools are no core work."""
    assert count(Does(slope, net=net), torch.randn(shape)).macs == macs


def test_arrays_that_are_constant_are_no_escape() -> None:
    """A table made of an array is data; values that only go to numpy leave a note."""
    table = np.ones((4, 2), np.float32)
    assert count(Does(lambda s, x: (float(x.sum()), x @ torch.from_numpy(table))[1]), torch.randn(3, 4)).macs == 24
    cost = count(Does(lambda s, x: (x.numpy().sum(), x @ x)[1]), torch.randn(4, 4))
    assert (cost.macs, cost.notes[0][:5]) == (64, "numpy")


def test_many_samples_of_a_grid_take_no_time() -> None:
    """48 calls are 48 answers of a known shape."""
    model = Does(lambda s, x, grid: reduce(lambda x, _: F.grid_sample(x, grid, align_corners=True), range(48), x))
    cost = count(model, torch.zeros(1, 4, 32, 32), torch.zeros(1, 32, 32, 2))
    assert (cost.macs, cost.operator_calls) == (0, {"aten::grid_sampler_2d": 48})


def test_packed_weights_are_told_by_what_they_stand_for() -> None:
    """Two numbers to a byte, and a scale to 64: as bitsandbytes keeps them; a quantised layer keeps its weight away."""
    model = nn.Module()
    model.w = nn.Parameter(torch.zeros(4096, 1, dtype=torch.uint8), requires_grad=False)
    model.w.quant_state = SimpleNamespace(shape=(128, 64), absmax=torch.zeros(128))  # type: ignore[attr-defined]
    cost = count(Does(lambda s, x: x, inner=model), torch.zeros(1))
    assert (cost.params, cost.bytes) == (8192, 4096 + 4 * 128)
    assert cost.notes[0].startswith("8,192 parameters are packed by a library, in 4,608 bytes")


@pytest.mark.filterwarnings("ignore")
def test_weights_that_pytorch_packs_are_noted() -> None:
    """A layer quantised for dynamic ranges has no parameters; its work is counted, and a note says what it holds."""
    quantise: Any = torch.ao.quantization.quantize_dynamic
    cost = count(quantise(nn.Sequential(nn.Linear(64, 128))), torch.zeros(2, 64))
    assert (cost.params, cost.macs) == (0, 2 * 64 * 128)
    assert f"{64 * 128 + 128:,} weights that a library packed" in cost.notes[-1]


def test_the_share_of_pruned_weights_is_told() -> None:
    """By zeros in the weight, or by the mask that will make them; a dense layer says nothing."""
    layers = [nn.Linear(100, 100) for _ in range(3)]
    with torch.no_grad():
        layers[0].weight[:25] = 0
    prune: Any = torch.nn.utils.prune.l1_unstructured
    prune(layers[1], "weight", amount=0.5)
    cost = count(nn.Sequential(*layers), torch.zeros(1, 100))
    assert cost.notes == ("12,500 of 20,000 weights in pruned tensors are not zero (62.5%): all are counted",)
    assert cost.macs == 30000


def test_few_zeros_are_found() -> None:
    """One weight in thirteen, and not the first, of which two of three layers have none."""
    layers = [nn.Linear(100, 100) for _ in range(3)]
    with torch.no_grad():
        layers[1].weight.flatten()[13::13] = 0
    cost = count(nn.Sequential(*layers), torch.zeros(1, 100))
    assert cost.notes == (
        "9,231 of 10,000 weights in tensors that are partly zero are not zero (92.3%): all are counted",
    )


def test_a_loop_over_what_is_found_is_left_to_a_real_run() -> None:
    """Without values as many would be found as there are places, and each of them looked at."""

    def forward(module: Any, x: Tensor) -> Any:
        found = (x > 0).nonzero()
        for _ in found:
            (x > 0).nonzero()
        return module.layer(x)

    cost = count(Does(forward, layer=nn.Linear(50, 4)), torch.zeros(50, 50))
    assert (cost.method, cost.macs) == ("real", 10000)


@pytest.mark.parametrize(
    ("shapes", "bits"),
    [
        ({"qweight": (128 * 4 // 32, 64), "qzeros": (1, 8), "scales": (1, 64), "g_idx": (128,)}, 4),
        ({"qweight": (128 * 3 // 32, 64), "qzeros": (1, 6), "scales": (1, 64)}, 3),
        ({"qweight": (128, 64 * 4 // 32), "qzeros": (1, 8), "scales": (1, 64)}, 4),
    ],
    ids=["GPTQ", "GPTQ in order", "AWQ"],
)
def test_weights_packed_into_words_are_told_by_what_they_stand_for(shapes: Any, bits: int, tmp_path: Path) -> None:
    """128 inputs by 64 outputs, in a module's buffers or parameters and in a file alike."""
    layer = nn.Module()
    for name, shape in shapes.items():
        held = torch.ones(shape, dtype=torch.half if name == "scales" else torch.int32)
        if bits == 3:
            layer.register_parameter(name, nn.Parameter(held, requires_grad=False))
        else:
            layer.register_buffer(name, held)
    note = f"8,192 weights of {bits} bits are packed in qweight, qzeros, scales, g_idx (layers: 1)"
    assert count(Does(lambda s, x: x, layer=layer), torch.zeros(1)).notes[-1].startswith(note)
    path = tmp_path / "w.safetensors"
    save_file(nn.ModuleDict({"layer": layer}).state_dict(), path)
    cost, _ = count_weights(read_safetensors_header(path), name="w", size=1)
    assert cost.notes[-1].startswith(note)


def test_a_real_run_that_does_not_fit_is_refused_before_it_begins(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence with both sizes; a model that needs no values is counted as ever."""
    monkeypatch.setattr("featherpress.budgets.counting.count._free_memory", lambda: 1000)
    layer = nn.Linear(64, 64, bias=False)
    reads = Does(lambda s, x: s.layer(x) if float(x.sum()) < 1 else x, layer=layer)
    with pytest.raises(UsageError, match=r"a real run that has them needs 0\.0 GB for a copy of its weights"):
        count(reads, torch.zeros(1, 64))
    assert count(layer, torch.zeros(1, 64)).macs == 4096
