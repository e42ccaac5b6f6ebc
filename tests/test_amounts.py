"""Amounts with K, M and G."""

import pytest

from featherpress.amounts import read_amount, read_amounts
from featherpress.errors import UsageError


@pytest.mark.parametrize(
    ("text", "amount"),
    [("256812", 256_812), ("256_812", 256_812), ("128K", 128_000), ("1.5m", 1_500_000), (" 2G ", 2_000_000_000)],
)
def test_amounts_are_thousands_and_millions(text: str, amount: int) -> None:
    assert read_amount(text) == amount


@pytest.mark.parametrize(
    "text", ["", "0", "-5", "1.2345K", "0.5", "12 K", "1e6", "K", "128KB", "1,000", "٣", "9" * 5000]
)
def test_what_is_no_whole_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"as 256812, 128K or 1\.5M; got"):
        read_amount(text)


def test_several_are_sorted_and_each_once() -> None:
    assert read_amounts("2K, 128,2000") == (128, 2000)
    with pytest.raises(UsageError, match="got ''"):
        read_amounts("128,")
