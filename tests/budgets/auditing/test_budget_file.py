"""Budget files: what is read, and one clear sentence for everything that cannot be."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from featherpress.budgets import audit, list_budgets, load_budget
from featherpress.budgets.auditing.budget_file import budget_schema, parse_budget
from featherpress.budgets.auditing.toml_lines import find_line
from featherpress.errors import BudgetFileError

GOOD = """\
model = "toy"
input = [1, 3, 8, 8]

[total]
params = { max = 1_000, warn = 900 }

[components.stem]
modules = ["conv*"]
params = { target = 224, tolerance = "1%" }
macs = { min = 1, max = 20_000 }

[[claims]]
component = "stem"
params = 200
source = "paper, table 1"
"""


def test_a_good_file_is_read_with_its_bounds() -> None:
    """Targets become bounds in whole numbers, a percentage rounded down."""
    budget = parse_budget(GOOD, file="toy.toml")
    stem = budget.components["stem"]
    assert stem.params is not None
    assert (stem.params.low, stem.params.high, stem.params.reference) == (222, 226, 224)
    assert budget.total.params is not None
    assert (budget.total.params.low, budget.total.params.high) == (None, 1000)
    assert (budget.convention, budget.file) == ("core-macs", "toy.toml")


def test_shipped_budgets_are_read_by_name() -> None:
    """All files that are shipped are valid, and the defaults' totals are the published ones."""
    assert list_budgets() == ["featherface_paper", "featherface_v1", "featherface_v1_ssh", "featherface_v2"]
    bounds = {}
    for name in list_budgets():
        limit = load_budget(name).total.params
        assert limit is not None
        bounds[name] = (limit.low, limit.high)
    assert bounds == {
        "featherface_paper": (592_371, 592_371),
        "featherface_v1": (476_000, 502_000),
        "featherface_v1_ssh": (502_028, 502_028),
        "featherface_v2": (253_440, 258_560),
    }


BROKEN = [
    ("max = 1_000", "maxx = 1_000", r"toy\.toml, line 5: unknown key 'maxx' in total\.params; did you mean 'max'"),
    ("[total]", "[totals]", r"line 4: unknown key 'totals' in the top level; did you mean 'total'"),
    ("modules =", "module =", r"line 8: unknown key 'module' in components\.stem; did you mean 'modules'"),
    (
        "source =",
        "zzz =",
        r"line 15: unknown key 'zzz' in claims\[1\]; expected one of component, source, .*and 1 more",
    ),
    ('source = "paper, table 1"', "", r"line 12: key 'source' is missing in claims\[1\]"),
    ('model = "toy"', "", r"key 'model' is missing in the top level"),
    ("input = [1, 3, 8, 8]", "input = [1, 3.5]", r"line 2: input\[2\]: expected a whole number, got 3\.5"),
    ("input = [1, 3, 8, 8]", "input = 640", r"line 2: input: expected a list, got 640"),
    ("input = [1, 3, 8, 8]", "input = []", r"line 2: input: expected at least 1 entry"),
    ("max = 1_000", 'max = "1000"', r"line 5: total\.params\.max: expected a whole number, got '1000'"),
    ("max = 1_000", "max = true", r"line 5: .*whole number, got True"),
    ("max = 1_000", "max = -1", r"line 5: .*expected at least 0, got -1"),
    ("max = 1_000", "max = 800", r"line 5: total\.params: warn 900 is above the upper limit 800"),
    ("min = 1,", "min = 30_000,", r"line 10: components\.stem\.macs: min 30,000 is above max 20,000"),
    ("min = 1, max = 20_000", "", r"line 10: components\.stem\.macs: a limit needs at least one of"),
    ("target = 224, ", "", r"line 9: .*needs at least one of"),
    ("warn = 900", "tolerance = 9", r"line 5: total\.params: a tolerance needs the target that it belongs to"),
    ('"1%"', '"some"', r'line 9: .*percentage such as "1%", got \'some\''),
    ("target = 224", "target = 224, max = 3", r"line 9: .*target already bounds both sides"),
    ("params = { max = 1_000, warn = 900 }", "params = 7", r"line 5: total\.params: expected a table, got 7"),
    ('modules = ["conv*"]', "modules = []", r"line 8: components\.stem\.modules: expected at least 1 entry"),
    ("params = 200", "", r"line 12: claims\[1\]: a claim needs params or macs"),
    ("[total]", "[total", r"toy\.toml is not valid TOML: .*line 4"),
    ("[total]", 'convention = "flops"\n[total]', r"line 4: convention: expected 'core-macs', got 'flops'"),
    ("components.stem", "components.total", r'a component cannot be called "total"'),
]


@pytest.mark.parametrize(("old", "new", "sentence"), BROKEN, ids=[new or f"no {old}" for old, new, _ in BROKEN])
def test_a_broken_file_gets_one_sentence_with_its_line(old: str, new: str, sentence: str) -> None:
    """Every mistake names the file, the line and the key, what was expected and what came."""
    assert old in GOOD
    with pytest.raises(BudgetFileError, match=sentence) as caught:
        parse_budget(GOOD.replace(old, new, 1), file="toy.toml")
    assert str(caught.value).startswith("toy.toml")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda folder: folder / "absent.toml",
            r"no budget file .*absent\.toml: give a path, or one of featherface_paper",
        ),
        (lambda folder: folder, "cannot read budget file"),
        (lambda folder: "nul\0name", "cannot read budget file"),
        (lambda folder: "x" * 5000, "cannot read budget file"),
        (lambda folder: "featherface_v3", "no budget file featherface_v3: give a path, or one of featherface_paper"),
    ],
)
def test_a_file_that_is_not_there(make: object, sentence: str, tmp_path: Path) -> None:
    """A missing file, a folder and an impossible name are budget-file errors too."""
    assert callable(make)
    with pytest.raises(BudgetFileError, match=sentence):
        load_budget(make(tmp_path))


VALUES = st.recursive(
    st.one_of(
        st.integers(),
        st.booleans(),
        st.floats().map(repr),
        st.sampled_from(['"1%"', '"x"', "''", "2020-01-01", "9" * 5000, "[" * 3000, '"\\ud800"', "{ max = 1 }"]),
    ).map(lambda value: str(value).lower() if isinstance(value, bool) else str(value)),
    lambda inner: st.lists(inner, max_size=3).map(lambda items: f"[{', '.join(items)}]"),
    max_leaves=5,
)
KEYS = ["model", "input", "convention", "total.params.max", "components.stem", "components.a.params", "claims", "max"]
KEYS += ["components.a.modules", "a" + ".b" * 3000, '"\\n"', "total.macs.tolerance", "zzz"]
LINES = st.one_of(
    st.sampled_from([*GOOD.splitlines(), "[[claims]]", "[components]", "[total.params]", "[", "]]", "# note", "'''"]),
    st.tuples(st.sampled_from(KEYS), VALUES).map(" = ".join),
    st.text(max_size=20),
)


def _sentence_of(text: str) -> str:
    try:
        return parse_budget(text, file="fuzz.toml").file
    except BudgetFileError as error:
        return str(error)


@settings(max_examples=120, deadline=None)
@given(st.lists(LINES, max_size=8).map("\n".join) | st.lists(LINES, max_size=3).map(lambda x: GOOD + "\n".join(x)))
def test_no_text_raises_anything_else(text: str) -> None:
    """Whatever a file holds, it is a budget or a BudgetFileError of one line."""
    sentence = _sentence_of(text)
    assert sentence.startswith("fuzz.toml")
    assert len(sentence.splitlines()) == 1


@settings(max_examples=30, deadline=None)
@given(content=st.binary(max_size=200))
def test_no_bytes_raise_anything_else(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Files that are no text are refused in the same way."""
    path = tmp_path_factory.mktemp("fuzz") / "bytes.toml"
    path.write_bytes(content)
    with pytest.raises(BudgetFileError):
        load_budget(path)


def test_lines_are_found_in_any_spelling() -> None:
    """Dotted keys, quoted keys, sub-tables and the second of two claims lead to their own lines."""
    text = 'a.b.c = 1\n["x y".params]\nmax = 2\n[[claims]]\nsource = "one"\n[[claims]]\nsource = "two"\n'
    assert find_line(text, ("a", "b", "c")) == 1
    assert find_line(text, ("x y", "params", "max")) == 3
    assert find_line(text, ("claims", 1, "source")) == 7
    assert find_line(text, ("claims", 0)) == 4
    assert find_line(text, ("elsewhere",)) is None


def test_the_schema_for_editors_knows_every_key() -> None:
    """The JSON Schema that `featherpress audit --schema` prints knows every key."""
    schema = json.loads(budget_schema())
    assert set(schema["properties"]) == {"model", "input", "convention", "total", "components", "claims", "accuracy"}
    assert schema["additionalProperties"] is False
    assert "peak" in schema["$defs"]["TotalLimits"]["properties"]


def test_activation_memory_can_be_limited() -> None:
    """Bytes written are limited for any part, the peak for the whole model alone."""
    text = 'model = "toy"\ninput = [1, 2, 4, 4]\n'
    limits = "[total]\npeak = { max = 255 }\n[components.0]\nactivations = { max = 127 }\n"
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU())
    result = audit(model, parse_budget(text + limits, file="toy.toml"), name="toy")
    assert [failure.split(";")[0] for failure in result.failures] == [
        "0 has 128 bytes of activations, 1 above the limit of 127",
        "total has 256 bytes of activations at the peak, 1 above the limit of 255",
    ]
    with pytest.raises(BudgetFileError, match=r"line 4: unknown key 'peak' in components\.0"):
        parse_budget(text + "[components.0]\npeak = { max = 1 }\n", file="toy.toml")


def test_a_rounded_claim_is_borne_out_by_what_rounds_to_it() -> None:
    """A document that prints 0.1K is right about 96 parameters, and wrong about 40."""
    text = (
        'model = "toy"\ninput = [1, 4]\n[[claims]]\ncomponent = "total"\nparams = 100\nsource = "x"\nrounded_to = 100\n'
    )
    budget = parse_budget(text, file="toy.toml")
    found = [audit(nn.Linear(4, out, bias=False), budget, name="toy").claims[0].verdict for out in (24, 10, 13, 37, 38)]
    assert found == ["equal", "differs", "equal", "equal", "differs"]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('model = "m"\n[total]\ninput = 640\n', "line 3: 'input' stands in [total]: it goes to the top of the file"),
        ('model = "m"\ninput = 640\n', "line 2: input: expected a list, got 640"),
        ('model = "m"\ninput = [1, "x"]\n', "line 2: input[2]: expected a whole number, got 'x'"),
    ],
)
def test_one_mistake_counts_once(text: str, sentence: str) -> None:
    """A key in the wrong table is missing in its own, and a value may fit none of several types: nothing more."""
    with pytest.raises(BudgetFileError) as caught:
        parse_budget(text, file="toy.toml")
    assert sentence in str(caught.value)
    assert "more)" not in str(caught.value)
