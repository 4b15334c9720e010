"""The settings of the watch, and of what is kept to trace a student to who trained it."""

from typing import Annotated, Literal

from msgspec import Meta

from palladion.errors import PolicyError
from palladion.policy.section import Section


class WatchPolicy(Section, frozen=True):
    """When a client is taken for a thief, and what follows (docs/watch.md)."""

    alpha_watched: Annotated[
        float,
        Meta(
            gt=0,
            le=0.5,
            description="Share of honest clients that may be watched by mistake in an epoch. Watched changes no "
            "answer.",
        ),
    ] = 0.01
    alpha_suspected: Annotated[
        float,
        Meta(
            gt=0,
            le=0.1,
            description="Share of honest clients that may be throttled or worse by mistake in an epoch. Needs as many "
            "calibration clients as one divided by it, less one: 999 for 0.001.",
        ),
    ] = 0.001
    alpha_spent: Annotated[
        Literal["epoch", "lifetime"],
        Meta(
            description="What alpha_watched and alpha_suspected are shares of, by a client's own queries: of honest "
            "clients in each epoch, or over all epochs of a client together. Then the k-th epoch has 0.61/k² of them. "
            "For epoch speaks that few calibration clients support so small shares (1,644 support 0.001 in one epoch, "
            "6,579 in two), and that whoever waits long enough is suspected by nothing but rules and groups. Of groups "
            "alpha_campaign is for each epoch, whatever this says."
        ),
    ] = "epoch"
    alpha_campaign: Annotated[
        float,
        Meta(
            gt=0,
            le=0.1,
            description="The same share for organisations whose members' queries are judged together. Needs two "
            "divided by it, less one, calibration organisations: 399 for 0.005.",
        ),
    ] = 0.005
    alpha_newcomers: Annotated[
        float,
        Meta(
            ge=0,
            le=0.1,
            description="Share of blocks of honest newcomers of whom a person is told by mistake: of as many clients "
            "in a row as are weighed together, 256 at most. It finds accounts that nothing links; nobody's standing "
            "depends on it. Needs 200 calibration clients. Below 0.002 nobody is told of any.",
        ),
    ] = 0.01
    degrade_after: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Suspicious queries after which a client gets labels only.")
    ] = 8
    suspend_after: Annotated[
        int, Meta(ge=1, le=1_000_000, description="Suspicious queries after which a client is suspended.")
    ] = 16
    onset_spread: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="How far the steps of suspicion are put off at most, by an amount that is secret and another "
            "for each account and epoch, the same for all three: up to this share of degrade_after. Keeps thresholds "
            "from being found by probing. 0 puts nothing off.",
        ),
    ] = 0.5
    simulated_may_enforce: Annotated[
        bool,
        Meta(
            description="Let a calibration from simulated clients do more than watch. Its rates hold for clients like "
            "the simulated ones, which yours may not be."
        ),
    ] = False
    suspend_campaigns: Annotated[
        bool,
        Meta(description="Let linked accounts be suspended together without a person; they are degraded otherwise."),
    ] = False
    activations: Annotated[
        bool,
        Meta(
            description="Look at the layers of ONNX models that run here as well, where they have any: five numbers "
            "each of at most eight layers. Takes effect with the next palladion watch calibrate. Off, because vendors "
            "hold patents around detection by activations: read docs/watch.md, Activations, before turning it on."
        ),
    ] = False
    decoys: Annotated[
        Literal["trusted", "watched", "throttled", "degraded", "suspended"],
        Meta(
            description="Standing that a client falls to, at least, who asks what stands only in a decoy "
            "(docs/decoys.md). Watched changes no answer, so that a person decides what follows; trusted opens a case "
            "and changes nothing."
        ),
    ] = "watched"
    proof_of_work: Annotated[
        int,
        Meta(
            ge=0,
            le=24,
            description="Bits of work that a throttled client has to prove for each request of a route that enforces "
            "and is not of protocol openai: 2 to that power of hashes, 18 for half a second. A watched client "
            "proves a quarter of it, a degraded one four times as much; clients need a program that does "
            "(docs/limits.md). 0 asks for none.",
        ),
    ] = 0
    information_budget: Annotated[
        int,
        Meta(
            ge=0,
            le=16_384,
            description="Most coverage buckets, of 16384, that a client and its linked accounts may have answered; "
            "beyond it they are throttled. 0 sets no budget.",
        ),
    ] = 0
    fidelity_max: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="The same in words: the best copy, as the share of answers on which it agrees with the model, "
            "that a client and its linked accounts may have by now; each model's learning curve says how many buckets "
            "that is. Needs a curve of every calibrated model (palladion watch budget). 0 sets no limit.",
        ),
    ] = 0.0
    recover_hours: Annotated[
        int,
        Meta(
            ge=1,
            le=8760,
            description="Hours without suspicion after which a standing is raised by one step. A suspension is lifted "
            "by a person.",
        ),
    ] = 24
    resident_mb: Annotated[
        int,
        Meta(
            ge=1,
            le=1_048_576,
            description="Most memory for the states of clients, in MiB, some 8 KiB each; those of the clients that "
            "asked longest ago are read from the registry again when they ask.",
        ),
    ] = 64


class RetentionPolicy(Section, frozen=True):
    """Which queries are kept, encrypted: to trace a student to who trained it, to calibrate a new version, to replay.

    They are your clients' data (docs/gate.md, What is kept of queries).
    """

    queries: Annotated[
        int,
        Meta(
            ge=0,
            le=1_000_000,
            description="Queries that are kept of each client and version, drawn at random from all it asked, with the "
            "model's own answers; 64 MiB at most. On routes that mark answers, the first of each cell of alike ones. "
            "0 keeps nothing, and no route may mark then.",
        ),
    ] = 5000
    texts: Annotated[
        bool,
        Meta(
            description="Keep what language models are asked as well: the texts, their parameters and when, of each "
            "client and model, to calibrate on (`palladion watch calibrate MODEL --retained`). Off, because people "
            "write in them what no row of numbers says."
        ),
    ] = False
    unmarked: Annotated[
        bool,
        Meta(
            description="Keep them also of routes that mark no answers: without, a new version cannot be calibrated "
            "before anybody asks it, and no policy tried on what was asked. false keeps those alone whose answers a "
            "mark is tested on."
        ),
    ] = True
    days: Annotated[
        int,
        Meta(
            ge=1,
            le=3650,
            description="Days after which a query without a mark is erased, by the gate that serves or by `palladion "
            "ledger expire`.",
        ),
    ] = 90
    marked_days: Annotated[
        int,
        Meta(
            ge=1,
            le=3650,
            description="Days after which one with a marked answer is erased, at least as many as the others': until "
            "then a student that was trained on it can be traced, and students are found late.",
        ),
    ] = 730
    total_mb: Annotated[
        int,
        Meta(
            ge=1,
            le=1_048_576,
            description="Most disk for all of them, in MiB: beyond it, or with less than 1 GiB free, no query without "
            "a mark is kept until others were erased. Those with marks are, since their answers depend on it.",
        ),
    ] = 4096

    def __post_init__(self) -> None:
        """Raises PolicyError where evidence would go before what is none."""
        if self.marked_days < self.days:
            raise PolicyError(
                f"retention.marked_days is {self.marked_days} and retention.days {self.days}: queries with marks would "
                "be erased before the others, and students could be traced no more",
                "set retention.marked_days to at least as many",
            )
