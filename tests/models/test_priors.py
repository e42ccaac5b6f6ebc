"""Priors in the order of the outputs, and encoding that can be undone."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from featherpress.models.detectors import normalize
from featherpress.models.priors import PriorSpec, decode_boxes, decode_landmarks, encode_boxes, encode_landmarks


def test_layout() -> None:
    """At 640x640 there are 16,800 priors, in level, row, column, size order."""
    priors = PriorSpec().priors(640, 640)
    assert priors.shape == (16_800, 4)
    assert priors[:3].tolist() == [[4, 4, 16, 16], [4, 4, 32, 32], [12, 4, 16, 16]]
    assert priors[2 * 80].tolist() == [4, 12, 16, 16]
    assert priors[2 * 80 * 80].tolist() == [8, 8, 64, 64]
    assert priors[-1].tolist() == [624, 624, 512, 512]


def test_sizes_with_other_numbers() -> None:
    """One prior a cell has each level's base size; four step by the square root of two."""
    assert PriorSpec(per_cell=1).sizes == ((16,), (64,), (256,))
    assert [round(size, 3) for size in PriorSpec(per_cell=4).sizes[0]] == [16, 22.627, 32, 45.255]


@given(st.lists(st.floats(0, 600), min_size=2, max_size=2), st.lists(st.floats(1, 500), min_size=2, max_size=2))
@settings(max_examples=50, deadline=None)
def test_encoding_is_undone(corner: list[float], size: list[float]) -> None:
    """Decoding an encoded box or point gives it back."""
    priors = PriorSpec().priors(96, 160)
    box = torch.tensor([[*corner, corner[0] + size[0], corner[1] + size[1]]]).expand(len(priors), 4)
    torch.testing.assert_close(decode_boxes(encode_boxes(box, priors), priors), box, rtol=1e-3, atol=1e-2)
    points = torch.tensor([corner * 5]).expand(len(priors), 10)
    torch.testing.assert_close(decode_landmarks(encode_landmarks(points, priors), priors), points, rtol=1e-3, atol=1e-2)


def test_normalisation() -> None:
    """RGB becomes BGR minus (104, 117, 123)."""
    images = torch.tensor([10, 20, 30], dtype=torch.uint8).view(1, 3, 1, 1)
    assert normalize(images).flatten().tolist() == [30 - 104, 20 - 117, 10 - 123]
