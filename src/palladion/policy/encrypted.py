"""The settings of programs that answer encrypted queries (docs/homomorphic.md)."""

from typing import Annotated, Literal

from msgspec import Meta

from palladion.policy.section import Section
from palladion.policy.serving import RoutePolicy


class EncryptedPolicy(Section, frozen=True):
    """A program that answers encrypted queries. Nobody sees what is asked: no suspicion, no rounding, no marks."""

    model: Annotated[str, Meta(min_length=1, max_length=64, description="Name under which clients may ask it.")]
    program: Annotated[
        str,
        Meta(
            max_length=1024,
            description="File that `palladion private compile` wrote, relative to this file, readable by this user "
            "alone: it is the model. Empty opens the promoted version of `model`, sealed by `palladion seal`.",
        ),
    ] = ""
    path: Annotated[
        str,
        Meta(
            max_length=200,
            pattern=r"^(/[A-Za-z0-9._~/-]*[A-Za-z0-9._~-])?$",
            description="Path under which it answers; empty means /v1/encrypted/MODEL.",
        ),
    ] = ""
    mode: Annotated[
        Literal["observe", "enforce"],
        Meta(
            description="Whether a client whose standing fell elsewhere still gets answers here: an encrypted answer "
            "cannot be reduced, so `enforce` refuses whoever is not to see whole ones."
        ),
    ] = "enforce"
    slots_per_client: Annotated[
        int,
        Meta(
            ge=1,
            le=2**50,
            description="Slots that one client may ever have answered. A ciphertext costs all numbers that its answer "
            "carries, divided by the model's outputs: `palladion private compile` says how many. One to three "
            "ciphertexts recover a model for a client that chooses its evaluation keys: this bounds use, and protects "
            "no model.",
        ),
    ] = 1_000_000
    slots_total: Annotated[
        int, Meta(ge=1, le=2**50, description="The same for all clients together, who may share what they learn.")
    ] = 100_000_000
    workers: Annotated[int, Meta(ge=1, le=256, description="Processes that compute; each takes one core.")] = 1
    answer_seconds: Annotated[
        int,
        Meta(ge=1, le=3600, description="Seconds in which an answer has to be computed; then its process is killed."),
    ] = 30
    upload_seconds: Annotated[
        int, Meta(ge=1, le=3600, description="Seconds in which keys or a query have to arrive.")
    ] = 120
    memory_mib: Annotated[int, Meta(ge=512, le=1024**2, description="Address space of each process, in MiB.")] = 4096
    query_mib: Annotated[int, Meta(ge=1, le=4096, description="Largest query, in MiB.")] = 64
    keys_mib: Annotated[
        int, Meta(ge=1, le=1024**2, description="Evaluation keys of all clients that are kept in memory, in MiB.")
    ] = 512
    keys_per_client: Annotated[
        int, Meta(ge=1, le=64, description="Sets of evaluation keys that are kept of one client; it needs one.")
    ] = 2

    @property
    def route(self) -> RoutePolicy:
        """The route as limits, scopes and records know it."""
        return RoutePolicy(model=self.model, path=self.path or f"/v1/encrypted/{self.model}", mode=self.mode)
