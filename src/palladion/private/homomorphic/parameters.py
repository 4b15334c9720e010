"""Which parameters of CKKS a program may have: few, all of 128-bit security, and nobody else's.

Bounds of the coefficient modulus are those of the HomomorphicEncryption.org standard (2018, table 1, ternary secret,
classical attacks), which SEAL enforces again (`sec_level_type.tc128`).

A chain is one first prime, two primes of the scale's size for each hidden layer (one is used up by its weights, one by
its square), and the special prime of key switching. The last layer uses up none: its products stay within the first.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any

from palladion.errors import FormatError
from palladion.private.homomorphic.library import library

# Degree → bits of all primes together at most.
MODULUS_BITS_MAX: Mapping[int, int] = MappingProxyType({4096: 109, 8192: 218, 16384: 438})


@dataclass(frozen=True)
class Parameters:
    """A ring and its primes: `degree` coefficients, `prime_bits` in SEAL's order, and the bits of the scale."""

    degree: int
    prime_bits: tuple[int, ...]
    scale_bits: int

    @property
    def slots(self) -> int:
        """Numbers that one ciphertext holds."""
        return self.degree // 2

    @property
    def hidden_layers(self) -> int:
        """Hidden layers that the chain carries."""
        return (len(self.prime_bits) - 2) // 2

    @property
    def first_bits(self) -> int:
        """Bits of the prime within which answers have to stay, with their scale."""
        return self.prime_bits[0]

    @property
    def ciphertext_bytes(self) -> int:
        """Bytes of two polynomials at the first level, without SEAL's header."""
        return 2 * (len(self.prime_bits) - 1) * self.degree * 8

    @property
    def key_bytes(self) -> int:
        """Bytes of one key of key switching, without SEAL's headers."""
        return 2 * (len(self.prime_bits) - 1) * len(self.prime_bits) * self.degree * 8


# In the order in which a compiler tries them, by hidden layers: the cheapest that is exact enough is taken.
ALLOWED: Mapping[int, Sequence[Parameters]] = MappingProxyType(
    {
        0: (Parameters(4096, (54, 55), 28), Parameters(8192, (60, 60), 30)),
        1: (Parameters(8192, (60, 33, 33, 60), 33), Parameters(16384, (60, 36, 36, 60), 36)),
        2: (Parameters(8192, (52, 27, 27, 27, 27, 58), 27), Parameters(16384, (60, 36, 36, 36, 36, 60), 36)),
        3: (Parameters(16384, (60, *6 * (36,), 60), 36),),
        4: (Parameters(16384, (60, *8 * (36,), 60), 36),),
    }
)
HIDDEN_LAYERS_MAX = max(ALLOWED)


def allowed(degree: int, prime_bits: Sequence[int], scale_bits: int) -> Parameters:
    """The parameters of these numbers. Raises FormatError unless they are some of `ALLOWED`."""
    wanted = Parameters(degree, tuple(prime_bits), scale_bits)
    if not any(wanted in some for some in ALLOWED.values()):
        raise FormatError(
            f"parameters of degree {degree} with primes of {'+'.join(map(str, prime_bits))} bits are not among those "
            "that are computed with here"
        )
    return wanted


class Ring:
    """A context of SEAL and what is needed of it at each level; costs some 10 ms and MiB to make."""

    def __init__(self, parameters: Parameters) -> None:
        """Raises MissingExtraError, and FormatError where SEAL does not take the parameters."""
        self.parameters = parameters
        self.seal = seal = library()
        settings = seal.EncryptionParameters(seal.scheme_type.ckks)
        settings.set_poly_modulus_degree(parameters.degree)
        settings.set_coeff_modulus(seal.CoeffModulus.Create(parameters.degree, list(parameters.prime_bits)))
        self.context = seal.SEALContext(settings, True, seal.sec_level_type.tc128)
        if not self.context.parameters_set():
            raise FormatError(f"SEAL does not take the parameters: {self.context.parameter_error_message()}")
        self.levels: list[Any] = []  # parms_id of each level, first level first
        self.primes: list[int] = []  # the prime that a rescale at that level drops
        self.data_primes: list[int] = []  # all of the first level
        data = self.context.first_context_data()
        while data is not None:
            self.levels.append(data.parms_id())
            moduli = [int(modulus.value()) for modulus in data.parms().coeff_modulus()]
            self.data_primes = self.data_primes or moduli
            self.primes.append(moduli[-1])
            data = data.next_context_data()

    @cached_property
    def encoder(self) -> Any:
        """The encoder of numbers."""
        return self.seal.CKKSEncoder(self.context)

    @cached_property
    def evaluator(self) -> Any:
        """What computes on ciphertexts."""
        return self.seal.Evaluator(self.context)

    @cached_property
    def parms_id(self) -> bytes:
        """The digest of the parameters that a fresh ciphertext carries in its bytes."""
        return b"".join(int(part).to_bytes(8, "little") for part in self.levels[0])

    @cached_property
    def key_parms_id(self) -> bytes:
        """The same of keys."""
        parts = self.context.key_context_data().parms_id()
        return b"".join(int(part).to_bytes(8, "little") for part in parts)
