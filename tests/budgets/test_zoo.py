"""The zoo's two defaults against their shipped budgets, and the finding behind "489K"."""

import ast
from pathlib import Path

import pytest
import torch

from featherpress import budgets
from featherpress.budgets import Audit, audit, cross_check, load_budget
from featherpress.models import create_model

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
    assert sum(row.cost.params for row in result.components) == params
    assert sum(row.cost.macs for row in result.components) == macs
    assert result.cost.unused == 0


def test_the_documents_rows_are_claims() -> None:
    """What the source document says is shown row by row; the rows that are right are few, and the claims add up."""
    verdicts = {}
    for name in ("featherface_v1", "featherface_v2"):
        claims = audited(name).claims
        *rows, total = claims
        assert sum(claim.claimed for claim in rows) == total.claimed
        assert sum(claim.ours for claim in rows) == total.ours
        assert all(claim.claim.note for claim in claims if claim.verdict == "differs")
        verdicts[name] = [claim.name for claim in claims if claim.verdict == "equal"]
    assert verdicts == {
        "featherface_v1": ["backbone", "backbone_attention", "shuffle"],
        "featherface_v2": ["backbone", "shuffle"],
    }


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


def test_budgets_never_import_models() -> None:
    """Counting knows nothing of the zoo."""
    folder = Path(budgets.__file__).parent
    for file in folder.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [str(node.module)] if isinstance(node, ast.ImportFrom) else []
            assert not [name for name in names if name.startswith("featherpress.models")], file
