"""Audits: rows that sum, verdicts to the last digit, failures that say what to do."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import RenderableType
from torch import Tensor, nn

from featherpress.budgets import Budget, audit, count, dump_budget, load_budget
from featherpress.budgets.auditing.budget_file import parse_budget
from featherpress.budgets.views.junit import render_junit
from featherpress.budgets.views.layout import format_macs
from featherpress.budgets.views.tables import render_csv, render_markdown, render_table
from featherpress.errors import BudgetFileError, UsageError

GOLDEN = Path(__file__).parents[2] / "golden"
INPUT = torch.zeros(1, 3, 8, 8)
HEADER = 'model = "toy"\ninput = [1, 3, 8, 8]\n'


class Toy(nn.Module):
    """stem 224 params, 13,824 MACs; body 2 x 584; head 36 of its own, and a scale held by the model itself."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1))
        self.head = nn.Linear(8, 4)
        self.scale = nn.Parameter(torch.ones(4))
        if tied:
            self.aux = nn.Linear(8, 4)
            self.aux.weight = self.head.weight

    def forward(self, image: Tensor) -> Tensor:
        return self.head(self.body(self.stem(image)).mean((2, 3))) * self.scale


def budget(text: str) -> Budget:
    return parse_budget(HEADER + text, file="toy.toml")


def test_rows_sum_to_the_total_without_a_budget() -> None:
    """Any model is audited by its top-level children and what it holds itself; the verdict is "unchecked"."""
    result = audit(Toy(), name="toy", example_inputs=(INPUT,))
    record = result.to_dict()
    rows = {row["name"]: (row["params"], row["macs"]) for row in record["components"]}
    assert rows == {
        "(root)": (4, 0),
        "stem": (224, 64 * 8 * 27),
        "body": (1168, 64 * 8 * 72 * 2),
        "head": (36, 32),
    }
    for quantity in ("params", "macs", "flops", "bytes", "elementwise"):
        assert sum(row[quantity] for row in record["components"]) == record["total"][quantity]
    assert (record["verdict"], result.exit_code, record["input"]) == ("unchecked", 0, [1, 3, 8, 8])
    assert json.loads(json.dumps(record)) == record


def test_tensors_tied_across_components_are_a_component() -> None:
    """What two components own belongs to "shared", which a budget can limit; inside one component it stays there."""
    result = audit(Toy(tied=True), name="toy", example_inputs=(INPUT,))
    assert {row.name: row.params for row in result.components}["shared"] == 32
    limited = audit(Toy(tied=True), budget("[components.shared]\nparams = { max = 31 }"), name="toy")
    assert (
        "shared has 32 parameters, 1 above the limit of 31; largest: shared: head.weight, aux.weight 32"
        in (limited.failures[0])
    )
    together = audit(Toy(tied=True), budget('[components.heads]\nmodules = ["head", "aux"]'), name="toy")
    assert {row.name: row.params for row in together.components}["heads"] == 32 + 4 + 4


@pytest.mark.parametrize(
    ("limit", "verdict", "beyond"),
    [
        ("{ max = 224 }", "within", 0),
        ("{ max = 223 }", "over", 1),
        ("{ min = 224 }", "within", 0),
        ("{ min = 300 }", "under", 76),
        ("{ target = 224 }", "within", 0),
        ("{ target = 225 }", "under", 1),
        ("{ target = 200, tolerance = 24 }", "within", 0),
        ('{ target = 222, tolerance = "1%" }', "within", 0),
        ('{ target = 221, tolerance = "1%" }', "over", 1),
        ("{ max = 300, warn = 200 }", "warn", 24),
    ],
)
def test_verdicts_are_exact(limit: str, verdict: str, beyond: int) -> None:
    """A limit is kept or broken by whole numbers; a warning fails nothing."""
    result = audit(Toy(), budget(f"[components.stem]\nparams = {limit}"), name="toy")
    row = next(row for row in result.components if row.name == "stem")
    assert [(row.verdict, check.beyond) for check in row.checks] == [(verdict, beyond)]
    failed = verdict in {"over", "under"}
    assert (result.verdict, result.exit_code) == (("over", 1) if failed else ("within", 0))


def test_failures_name_file_overshoot_and_contributors() -> None:
    """Each failure is a sentence with the table to edit, the amount and the largest parts."""
    text = "[total]\nmacs = { max = 80_000 }\n[components.body]\nparams = { max = 1_000 }\nbytes = { max = 4_000 }"
    result = audit(Toy(), budget(text), name="toy")
    assert result.failures == (
        "body has 1,168 parameters, 168 above the limit of 1,000; largest: body.0 584, body.2 584; "
        "change the model, or params under [components.body] in toy.toml",
        "body has 4,672 bytes, 672 above the limit of 4,000; largest: body.0 2,336, body.2 2,336; "
        "change the model, or bytes under [components.body] in toy.toml",
        "total has 87,584 MACs, 7,584 above the limit of 80,000; largest: body 73,728, stem 13,824, head 32; "
        "change the model, or macs under [total] in toy.toml",
    )


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "[components.neck]",
            "pattern 'neck' of component neck matches no module .* something like .root., stem, body",
        ),
        ('[components.a]\nmodules = ["st?m", "x*"]', r"pattern 'x\*' of component a matches no module"),
        (
            '[components.a]\nmodules = ["body"]\n[components.b]\nmodules = ["body.0"]',
            "body.0 falls into two components, a",
        ),
        ('[components.a]\nmodules = ["*"]\n[components.stem]', "stem falls into two components, a and stem"),
        ("[components.shared]", "pattern 'shared' of component shared matches no module"),
        (
            '[[claims]]\ncomponent = "neck"\nparams = 1\nsource = "x"',
            "claim is about component 'neck', expected one of",
        ),
    ],
)
def test_a_budget_that_does_not_fit_the_model(text: str, sentence: str) -> None:
    """Patterns without a module, modules in two components and claims about nothing are errors of the file."""
    with pytest.raises(BudgetFileError, match=rf"toy\.toml: .*{sentence}"):
        audit(Toy(), budget(text), name="toy")


def test_a_component_may_be_part_of_a_child() -> None:
    """What a budget leaves over of a child keeps the child's name, and a taken name is told apart."""
    result = audit(Toy(), budget('[components.last]\nmodules = ["body.2"]\n[components."(root)"]'), name="toy")
    assert {row.name: row.params for row in result.components} == {
        "(root)": 4,
        "stem": 224,
        "body": 584,
        "last": 584,
        "head": 36,
    }
    renamed = audit(Toy(), budget('[components.stem]\nmodules = ["head"]'), name="toy")
    assert {row.name: row.params for row in renamed.components}["stem (rest)"] == 224


CLAIMS = """
[[claims]]
component = ["stem", "head"]
params = 260
source = "paper"
[[claims]]
component = "total"
macs = 87_000
source = "paper, page 3"
"""


def test_claims_stand_beside_and_fail_only_when_strict() -> None:
    """A document that is wrong is shown with the difference; only `strict_claims` makes it a failure."""
    result = audit(Toy(), budget(CLAIMS), name="toy")
    found = [(claim.component, claim.claimed, claim.ours, claim.difference, claim.verdict) for claim in result.claims]
    assert found == [("stem + head", 260, 260, 0, "equal"), ("total", 87_000, 87_584, 584, "differs")]
    assert (result.verdict, result.exit_code) == ("unchecked", 0)
    strict = audit(Toy(), budget(CLAIMS), name="toy", strict_claims=True)
    assert strict.exit_code == 1
    assert strict.failures == (
        "paper, page 3 claims 87,000 MACs for total, counted are 87,584 (+584); "
        "change the model, or the claim in toy.toml",
    )


def test_claims_are_headed_by_their_documents() -> None:
    """One says, two say; a reason names the document only where there are several."""
    one, two = (audit(Toy(), budget(text), name="toy") for text in (CLAIMS, CLAIMS.replace('"paper"', '"card"')))
    assert "What paper says, beside the count:" in render_markdown(one)
    assert "What card and paper say, beside the count:" in render_markdown(two)
    assert "[page 3]" in render_markdown(one)
    assert "[paper, page 3]" in render_markdown(two)


def test_another_input_shape_leaves_macs_unchecked() -> None:
    """Limits on MACs hold for the file's input alone; parameters are checked at any, and a note says so."""
    limits = budget("[total]\nparams = { max = 2_000 }\nmacs = { max = 1 }")
    result = audit(Toy(), limits, name="toy", example_inputs=(torch.zeros(1, 3, 16, 16),))
    assert [check.quantity for check in result.total.checks] == ["params"]
    assert "holds for input 1x3x8x8, counted was 1x3x16x16" in result.notes[0]
    assert result.verdict == "within"


def test_no_shape_is_a_usage_error() -> None:
    """Without a budget somebody has to say the input shape."""
    with pytest.raises(UsageError, match="auditing toy without a budget needs example_inputs"):
        audit(Toy(), name="toy")


@pytest.mark.parametrize("tied", [False, True])
def test_a_written_budget_holds_the_model_to_what_it_is(tied: bool, tmp_path: Path) -> None:
    """`dump_budget` reads back, keeps the model within, and notices one parameter more."""
    model = Toy(tied=tied)
    path = tmp_path / "init.toml"
    path.write_text(dump_budget(count(model, INPUT)))
    assert audit(model, load_budget(path), name="toy").verdict == "within"
    model.head.register_parameter("extra", nn.Parameter(torch.zeros(1)))
    result = audit(model, load_budget(path), name="toy")
    assert [failure.split(";")[0] for failure in result.failures] == [
        "head has 5 parameters, 1 above the limit of 4" if tied else "head has 37 parameters, 1 above the limit of 36",
        f"total has {1437 if tied else 1433:,} parameters, 1 above the limit of {1436 if tied else 1432:,}",
    ]


GOLDEN_BUDGET = """
[total]
params = { target = 1_400, tolerance = "1%" }
macs = { max = 90_000, warn = 80_000 }
[components.stem]
params = { target = 224 }
[components.a_rather_long_name]
modules = ["body"]
params = { max = 1_000 }
macs = { max = 50_000 }
[[claims]]
component = "stem"
params = 224
source = "paper, table 1"
[[claims]]
component = "total"
params = 1_430
source = "paper, table 1"
note = "the paper forgets the scale"
"""


@pytest.mark.parametrize(
    ("file", "render"),
    [
        ("audit.txt", partial(render_table, verbose=True, shapes=True)),
        ("audit.md", partial(render_markdown, verbose=True, shapes=True)),
        ("audit.csv", render_csv),
        ("audit.xml", render_junit),
    ],
)
def test_output_is_as_the_golden_file(
    file: str, render: Callable[..., Any], print_plain: Callable[[RenderableType], str]
) -> None:
    """Every rendering of one audit with all verdicts in it, letter by letter; 80 columns and no colour."""
    rendered = render(audit(Toy(), budget(GOLDEN_BUDGET), name="toy"))
    text = rendered if isinstance(rendered, str) else print_plain(rendered)
    assert text == (GOLDEN / file).read_text(encoding="utf-8")
    if file == "audit.txt":
        assert max(map(len, text.splitlines())) <= 80
        assert "\x1b" not in text


def test_the_printed_parameters_sum_to_the_printed_total() -> None:
    """The column as a reader sees it adds up."""
    lines = (GOLDEN / "audit.csv").read_text(encoding="utf-8").splitlines()[1:]
    params = [int(line.split(",")[1]) for line in lines]
    assert sum(params[:-1]) == params[-1] == 1432


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (0, "0"),
        (9_999, "9,999"),
        (10_000, "10.00 k"),
        (927_736_256, "927.7 M"),
        (9_999_999, "10.00 M"),
        (1_855_472_512, "1.86 G"),
        (99_960_000, "99.96 M"),
        (10**13, "10.00 T"),
    ],
)
def test_macs_are_shortened_for_tables(amount: int, text: str) -> None:
    """Four digits and a unit; small amounts stay whole."""
    assert format_macs(amount) == text


def test_without_a_limit_no_column_speaks_of_one(print_plain: Callable[[RenderableType], str]) -> None:
    """No target, difference or verdict, and the word unchecked nowhere; what nobody asked for waits for `verbose`."""
    result = audit(Toy(), name="toy", example_inputs=(INPUT,))
    for text in (print_plain(render_table(result)), render_markdown(result)):
        assert "MACs" in text
        assert not [word for word in ("target", "diff", "verdict", "unchecked", "ideal", "resampling") if word in text]
    assert "ideal bytes" in print_plain(render_table(result, verbose=True))
    claimed = audit(Toy(), budget(CLAIMS), name="toy")
    assert "unchecked" not in print_plain(render_table(claimed))


def test_shapes_are_of_what_goes_in_and_out(print_plain: Callable[[RenderableType], str]) -> None:
    """A component of several modules takes what the first takes and returns what the last returns."""
    result = audit(Toy(), budget('[components.ends]\nmodules = ["stem", "head"]\n[components.body]'), name="toy")
    assert {row.name: row.shapes for row in result.components} == {
        "(root)": ("1x3x8x8", "1x4"),
        "ends": ("1x3x8x8", "1x4"),
        "body": ("1x8x8x8", "1x8x8x8"),
    }
    lines = print_plain(render_table(result, shapes=True)).splitlines()
    assert [line.split() for line in lines if line.startswith("body")][1] == ["body", "1x8x8x8", "1x8x8x8"]


def test_markdown_escapes_tags_and_entities() -> None:
    """Names of files and models are text in a pull request, whatever they hold."""
    text = render_markdown(audit(Toy(), name="<b>&lt;|x", example_inputs=(INPUT,)))
    assert text.startswith("## &lt;b>&amp;lt;\\|x\n")
