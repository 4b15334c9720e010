"""The text of a publisher's key, which the verifier computes by itself, is the one that our commands print."""

from hypothesis import given
from hypothesis import strategies as st

from palladion.incident.dossier.verifier.publisher import publisher_text
from palladion.seal import sign


@given(st.binary(min_size=32, max_size=32))
def test_it_is_the_text_that_our_commands_print(key: bytes) -> None:
    assert publisher_text(key) == sign.publisher_text(key)
