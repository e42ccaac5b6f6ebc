"""The zoo's two defaults against their shipped budgets, and the finding behind "489K"."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from rich.console import RenderableType

from featherpress.budgets import Audit, audit, cross_check, load_budget
from featherpress.budgets.views.tables import render_table
from featherpress.models import create_model

Printer = Callable[[RenderableType], str]

PARTS = ["backbone", "backbone_attention", "bifpn", "pyramid_attention", "context", "shuffle", "heads"]


def audited(name: str) -> Audit:
    return audit(create_model(name), load_budget(name), name=name)


@pytest.mark.parametrize(
    ("name", "params", "macs"),
    [("featherface_v1", 485_599, 927_736_256), ("featherface_v2", 256_812, 429_603_776)],
)
def test_both_defaults_are_within_their_budgets(name: str, params: int, macs: int) -> None:
    """Totals are as designed, every component has a limit and keeps it, and the rows sum."""
    result = audited(name)
    assert (result.verdict, result.cost.params, result.cost.macs) == ("within", params, macs)
    assert [row.name for row in result.components] == PARTS
    assert {row.verdict for row in (*result.components, result.total)} == {"within"}
    assert sum(row.params for row in result.components) == params
    assert sum(row.macs for row in result.components) == macs
    assert result.cost.unused == 0


def test_the_documents_rows_are_claims() -> None:
    """What the source document says is shown row by row; the rows that are right are few, and the claims add up."""
    verdicts = {}
    for name in ("featherface_v1", "featherface_v2"):
        claims = audited(name).claims
        *rows, total = claims
        assert sum(claim.claimed for claim in rows) == total.claimed
        assert sum(claim.ours for claim in rows) == total.ours
        assert all(claim.note for claim in claims if claim.verdict == "differs")
        verdicts[name] = [claim.component for claim in claims if claim.verdict == "equal"]
    assert verdicts == {
        "featherface_v1": ["backbone", "backbone_attention", "shuffle"],
        "featherface_v2": ["backbone", "shuffle"],
    }


@pytest.mark.parametrize("name", ["featherface_paper", "featherface_v1_ssh"])
def test_the_other_shipped_budgets_hold(name: str) -> None:
    """The published model and the document's second V1 are within exact budgets, and every wrong claim is explained."""
    result = audited(name)
    assert (result.verdict, [row.name for row in result.components]) == ("within", PARTS)
    assert {row.verdict for row in (*result.components, result.total)} == {"within"}
    assert all(claim.source for claim in result.claims)
    assert all(claim.note for claim in result.claims if claim.verdict == "differs")


def test_the_documents_second_table() -> None:
    """Of what the document says about C 56, only "502K" is right, and only as it was rounded."""
    found = {
        (claim.component, claim.claimed): (claim.verdict, claim.ours) for claim in audited("featherface_v1_ssh").claims
    }
    assert [key for key, (verdict, _) in found.items() if verdict == "equal"] == [("total", 502_000)]
    assert found["context", 170_000] == ("differs", 192_555)
    paper = {claim.claimed: claim.difference for claim in audited("featherface_paper").claims}
    assert paper[488_661] == 103_710 == 3 * 9 * (64 * 32 + 64 * 16 + 3 * 16 * 16) + 30


def test_notes_hold_their_formulas() -> None:
    """The closed forms in the budgets' notes give the numbers that are counted."""

    def bifpn(c: int, n: int) -> int:
        return n * (4 * (c * c + 12 * c) + 10) + 847 * c

    def cbam(c: int, h: int) -> int:
        return 3 * (2 * c * h + h + c + 100)

    with torch.device("meta"):
        models = {
            (74, "featherface_v1"): create_model("featherface_v1"),
            (56, "featherface_v1_ssh"): create_model("featherface_v1_ssh"),
        }
    counted = {
        key: {name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()}
        for key, model in models.items()
    }
    v1, ssh = counted[74, "featherface_v1"], counted[56, "featherface_v1_ssh"]
    assert (v1["bifpn"], ssh["bifpn"]) == (bifpn(74, 3), bifpn(56, 2))
    assert (v1["pyramid_attention"], ssh["pyramid_attention"]) == (cbam(74, 4), cbam(56, 3))
    assert (cbam(74, 23), bifpn(74, 2), bifpn(54, 2), bifpn(55, 2)) == (10_803, 113_610, 74_270, 76_085)
    assert 11_528 + cbam(64, 4) == 13_568
    assert v1["context"] == 3 * (9 * 74 * 74 // 2 + 18 * (9 * 74 + 1) + 9 * 75 + 2 * 74)
    assert (v1["heads"], ssh["heads"]) == (96 * 75, 96 * 57)


def test_verdicts_never_break_inside_a_word(print_plain: Printer) -> None:
    """V2 under V1's budget, whose rows are under and over by large amounts, still fits 80 columns word by word."""
    result = audit(create_model("featherface_v2"), load_budget("featherface_v1"), name="featherface_v2")
    lines = print_plain(render_table(result)).splitlines()
    assert max(map(len, lines)) <= 80
    table = {line.split()[0]: line for line in lines[2:11] if line}
    assert table["backbone_attention"].endswith(" -10,532 under")
    assert table["bifpn"].endswith(" -119,664 under")
    assert table["total"].endswith(" -232,188 under")
    assert "219,188 below the limit of 476,000" in " ".join(lines)


def test_one_model_breaks_the_others_budget() -> None:
    """V1 under V2's budget fails in every component that V2 made smaller, and in both totals."""
    result = audit(create_model("featherface_v1"), load_budget("featherface_v2"), name="featherface_v1")
    assert result.exit_code == 1
    over = [sentence.split(" has ")[0] for sentence in result.failures]
    assert over == ["backbone_attention", "bifpn", "pyramid_attention", "context", "heads", "total", "total"]


def test_where_489k_comes_from() -> None:
    """thop reports 488,661 of the published model's 592,371 parameters, and the sentences account for the rest."""
    result = cross_check(create_model("featherface_paper"), torch.zeros(1, 3, 64, 64))
    total = result.rows[-1]
    assert (total.params, total.peer_params["thop"]) == (592_371, 488_661)
    assert total.macs == total.peer_macs["fvcore"] == total.peer_macs["torch"]
    said = " ".join(found.sentence for found in result.disagreements)
    assert "does not see 103,680 weights of DeformableConv used through deform_conv2d" in said
    assert "does not see 30 weights of FusionNode" in said
    assert result.explained
    story = (Path(__file__).parents[3] / "docs" / "the_489k_finding.md").read_text(encoding="utf-8")
    for row in result.rows:
        printed = next(line.split() for line in story.splitlines() if line.split()[:1] == [row.name])
        assert printed == [row.name, f"{row.params:,}", f"{row.peer_params['thop']:,}"]
