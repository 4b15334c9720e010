"""Differential privacy: training that no single row can have changed much, with an account of ε, and the word for it.

`train_linear_dp` is for linear and logistic models and needs no extra; `train_dp` is for torch modules. Both return a
`PrivacyStatement`, which `palladion protect --privacy` signs into the version. A statement is what whoever trained says
of the training: its arithmetic can be checked (`accounting`), and the training can be attacked (the red team's
`membership.canaries`), but nothing proves it.
"""

from palladion.private.dp.accounting import epsilon_of, noise_for
from palladion.private.dp.linear import LinearModel, train_linear_dp
from palladion.private.dp.modules import train_dp
from palladion.private.dp.statement import PrivacyStatement, decode_statement, read_statement
from palladion.private.dp.verify import Checked, verify_statement

__all__ = [
    "Checked",
    "LinearModel",
    "PrivacyStatement",
    "decode_statement",
    "epsilon_of",
    "noise_for",
    "read_statement",
    "train_dp",
    "train_linear_dp",
    "verify_statement",
]
