"""What is spent of a rate in each epoch adds up to it, and what a calibration supports is what is weighed."""

import pytest

from palladion.watch.spending import epochs_supported, spent_weight


def test_all_epochs_together_have_the_whole_rate_and_no_more() -> None:
    spent = [1 / spent_weight(epoch) for epoch in range(10_000)]

    assert spent[0] == pytest.approx(0.6079, abs=1e-4)
    assert 0.9999 < sum(spent) < 1
    assert sorted(spent, reverse=True) == spent


@pytest.mark.parametrize(
    ("clients", "epochs"), [(20, 0), (999, 0), (1643, 0), (1644, 1), (6578, 1), (6579, 2), (14_803, 2), (14_804, 3)]
)
def test_as_many_epochs_are_supported_as_the_page_says(clients: int, epochs: int) -> None:
    assert epochs_supported(0.001, 1 / (clients + 1)) == epochs


@pytest.mark.parametrize("epochs", [1, 2, 3, 7, 30])
def test_the_last_epoch_that_is_supported_is_the_last_whose_smallest_p_value_counts_for_the_rate(epochs: int) -> None:
    for rate_min in (1e-3, 1 / 1645, 1 / 21):
        rate = rate_min * spent_weight(epochs - 1)  # exactly what is needed

        assert epochs_supported(rate, rate_min) == epochs
        assert rate_min * spent_weight(epochs) > rate
