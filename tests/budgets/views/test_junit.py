"""JUnit: valid by what Jenkins takes, with the reason in the message, whatever way an audit or a gate ends."""

from collections.abc import Callable
from pathlib import Path
from xml.etree import ElementTree

import pytest

from featherpress.budgets.views.junit import Case, render_suite

Run = Callable[..., tuple[int, str, str]]
NETS = """
import torch
from torch import nn


class A(nn.Module):
    def __init__(self, w=4):
        super().__init__()
        self.l = nn.Linear(8, w)

    def forward(self, x):
        return self.l(x)


class FFT(A):
    def forward(self, x):
        return torch.fft.fft(self.l(x)).abs()


class Angry(A):
    def forward(self, x):
        raise ValueError("no \\x1b[31mway\\x00 <&> \\u20ac")
"""
#: Of Jenkins' junit-10: attributes that must be there, those that may, and which elements may lie inside.
SCHEMA: dict[str, tuple[set[str], set[str], set[str]]] = {
    "testsuite": (
        {"name", "tests", "failures", "errors"},
        {"group", "time", "skipped", "timestamp", "hostname", "id", "package", "file", "log", "url"},
        {"testsuite", "properties", "testcase", "system-out", "system-err"},
    ),
    "testcase": ({"name"}, {"time", "classname", "group"}, {"skipped", "error", "failure", "system-out", "system-err"}),
    **dict.fromkeys(("failure", "error", "skipped"), (set(), {"type", "message"}, set())),
    **dict.fromkeys(("system-out", "system-err"), (set(), set(), set())),
}


def checked(text: str) -> ElementTree.Element:
    """Parse XML and hold it to the schema, and its counts to its cases."""
    suite = ElementTree.fromstring(text)  # noqa: S314 -- our own
    for element in suite.iter():
        needed, allowed, inside = SCHEMA[element.tag]
        assert needed <= set(element.attrib) <= needed | allowed
        assert {child.tag for child in element} <= inside
    for key, tag in (("tests", "testcase"), ("failures", "testcase/failure"), ("errors", "testcase/error")):
        assert int(suite.attrib[key]) == len(suite.findall(tag))
    return suite


@pytest.fixture
def junit(
    run_command: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Callable[..., tuple[int, ElementTree.Element]]:
    (tmp_path / "junit_nets.py").write_text(NETS)
    monkeypatch.delenv("GITHUB_STEP_SUMMARY", raising=False)

    def call(*words: str) -> tuple[int, ElementTree.Element]:
        code, out, _ = run_command(*(word.replace("mods:", "junit_nets:") for word in words), "--format", "junit")
        return code, checked(out)

    return call


Junit = Callable[..., tuple[int, ElementTree.Element]]


def test_a_baseline_says_what_grew_and_that_nothing_did(junit: Junit, run_command: Run) -> None:
    """The ratchet's sentence is the failure's message; what was held to it passes, and is not skipped."""
    assert junit("audit", "mods:A", "--input", "1x8", "--pin", "p.json")[0] == 0
    code, suite = junit("audit", "mods:A", "--set", "w=6", "--baseline", "p.json")
    messages = [each.attrib["message"] for each in suite.findall("testcase/failure")]
    assert (code, messages[0].startswith("l has 54 parameters, 18 more than the 36 pinned in p.json")) == (1, True)
    assert "unchecked" not in ElementTree.tostring(suite, encoding="unicode")
    code, suite = junit("audit", "mods:A", "--baseline", "p.json")
    assert (code, suite.attrib["failures"], suite.attrib["skipped"]) == (0, "0", "0")
    assert "nothing grew since p.json" in (suite.findtext("system-out") or "")


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (["mods:FFT", "--input", "1x8"], 3, "no formula for operator aten::_fft_r2c"),
        (["mods:Angry", "--input", "1x8"], 2, "<&> \u20ac"),
        (["mods:A", "--budget", "gone.toml"], 2, "no budget file gone.toml"),
        (["gone:A"], 2, "cannot import"),
        (["gone.onnx"], 2, "there is no file gone.onnx"),
    ],
)
def test_what_could_not_be_counted_is_an_error_of_the_report(
    junit: Junit, words: list[str], code: int, reason: str
) -> None:
    """Exit 2 and 3 leave a report too, with the sentence as its message, in letters that XML has."""
    ended, suite = junit("audit", *words)
    (error,) = suite.findall("testcase/error")
    assert (ended, suite.attrib["errors"]) == (code, "1")
    assert reason in error.attrib["message"]


def test_warnings_are_visible(junit: Junit, tmp_path: Path) -> None:
    """A budget's warning fails nothing and is said, in a case that passes and beside one that fails."""
    limits = "[total]\nparams = { max = 40, warn = 30 }\nmacs = { max = MOST, warn = 1 }\n"
    for most, code, failures in ((99, 0, 0), (2, 1, 1)):
        (tmp_path / "b.toml").write_text('model = "x"\ninput = [1, 8]\n' + limits.replace("MOST", str(most)))
        ended, suite = junit("audit", "mods:A", "--budget", "b.toml")
        assert (ended, int(suite.attrib["failures"])) == (code, failures)
        total = next(case for case in suite.findall("testcase") if case.attrib["name"] == "total")
        assert "warning: total has 36 parameters, 6 above 30" in (total.findtext("system-out") or "")


def test_a_gate_is_valid_too(junit: Junit, tmp_path: Path) -> None:
    """Not worse, worse, and what cannot be compared."""
    for name, scores in (("good", (0.0, 1.0)), ("bad", (0.0, 0.5))):
        rows = "".join(f"{row},{scores[row % 2]}\n" for row in range(40))
        (tmp_path / f"{name}.csv").write_text(f"example,score\n{rows}")
    for candidate, code, tag in (("good.csv", 0, "system-out"), ("bad.csv", 1, "failure"), ("gone.csv", 2, "error")):
        ended, suite = junit("gate", candidate, "--baseline", "good.csv", "--margin", "0.1")
        assert (ended, [each.tag for each in suite.findall("testcase/*")]) == (code, [tag])


def test_any_text_makes_valid_xml() -> None:
    """Letters that XML cannot hold are written out, all others kept, and the file is ASCII."""
    text = "".join(map(chr, [*range(0x20), 0x7F, 0xD800, 0xFFFE, 0xFFFF, 0x20AC, 0x1F600])) + "]]> <&"
    made = render_suite(text, [Case(name=text, outcome="error", message=text, text=text, said=[text])], said=[text])
    assert made.isascii()
    found = checked(made).findtext("testcase/error") or ""
    assert found.endswith("\u20ac\U0001f600]]> <&")
    assert found.startswith(r"\x00\x01")
    assert "\\x08\t\n\\x0b" in found
