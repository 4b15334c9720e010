"""Federated learning: sites train one model together, and the server learns the sum of their updates alone.

Around Flower, which carries the messages (`flower`); everything else needs no extra. EXPERIMENTAL, and secure against
servers that pass messages on as they are; docs/federated.md says what it is not secure against.
"""

from palladion.private.federated.aggregation import Summed, aggregate
from palladion.private.federated.site import Site
from palladion.private.federated.terms import Terms

__all__ = ["Site", "Summed", "Terms", "aggregate"]
