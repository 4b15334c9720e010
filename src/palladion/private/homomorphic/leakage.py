"""What answers to encrypted queries give away of the model, and how little hides it. Pure.

No watch sees what is asked, no answer can be rounded or cut, and noise that would stop a thief stops everybody else
first (measured: docs/homomorphic.md). What is left is counting: a network of squares is a polynomial in its features,
and whoever has as many answers as that has monomials solves for it by least squares. Honest evaluation keys leave an
answer for each row in a ciphertext; whoever chooses its evaluation keys can switch the sums over slots off, and reads
exact numbers from every coefficient of an answer. So a ciphertext counts for all the numbers that it carries.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from math import comb

from palladion.private.homomorphic.program import Bundle


@dataclass(frozen=True)
class Leakage:
    """How many slots, each an answer of as many numbers as the model has outputs, recover a program.

    `monomials` do by least squares; with `weights_rows`, there are as many equations as weights, and below that nothing
    but luck determines them all.
    """

    monomials: int
    weights_rows: int
    linear: bool

    @property
    def unknowns(self) -> int:
        """The slots after which the program is to be taken for known."""
        return min(self.monomials, self.weights_rows)

    def sentences(self) -> list[str]:
        """What whoever offers the program has to know."""
        if self.linear:
            unprotected = (
                f"{self.monomials} slots recover this linear model exactly, and one ciphertext carries as many: no "
                "budget of queries protects it from the clients that may ask it"
            )
            instead = (
                "what helps is a contract, a model that says little of single rows (docs/privacy.md), or serving "
                "plaintext queries from an attested machine; that a client shows labels alone, nothing enforces"
            )
            return [unprotected, instead]
        limit = (
            f"{self.monomials} slots recover this model's function by least squares, {self.weights_rows} are as many "
            "equations as it has weights, and one to three ciphertexts of a client that chooses its evaluation keys "
            "carry as many: no budget of queries protects it from the clients that may ask it"
        )
        return [limit, "what helps is a contract, or serving plaintext queries from an attested machine"]


def slots_carried(bundle: Bundle, ciphertexts: int, *, by_columns: bool) -> int:
    """What the answer to so many ciphertexts counts for: all its numbers, as if each told of the model, in slots."""
    numbers = bundle.parameters.degree * 2
    if not by_columns:
        return ciphertexts * -(-numbers // bundle.outputs)
    # a ciphertext for each output; after a square, of three polynomials
    return numbers if not bundle.hidden_layers else numbers * 3 // 2


def leakage(widths: Sequence[int]) -> Leakage:
    """Of a network with squares between layers; `widths` are its features and the outputs of each layer."""
    features, outputs, hidden = widths[0], widths[-1], len(widths) - 2
    monomials = comb(features + 2**hidden, 2**hidden)
    weights = sum((before + 1) * after for before, after in itertools.pairwise(widths))
    return Leakage(monomials, -(-weights // outputs), linear=hidden == 0)
