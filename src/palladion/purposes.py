"""What each key of an installation's two roots is for, and what its loss or theft would cost (docs/keys.md)."""

from dataclasses import dataclass
from typing import Literal

RootName = Literal["owner", "gate"]


@dataclass(frozen=True)
class Purpose:
    """What one key of a root is for, and what its loss or theft would cost; docs/keys.md prints the same table."""

    root: RootName
    name: str
    source: Literal["derived", "signing", "identity"]
    use: str
    loss: str
    theft: str


PURPOSES: tuple[Purpose, ...] = (
    Purpose(
        "owner",
        "mark",
        "derived",
        "places and reads the ownership marks of every model",
        "no mark can be proved any more, and ownership rests on the ledger's commitments",
        "the thief can find the marks and remove them",
    ),
    Purpose(
        "owner",
        "fingerprint",
        "derived",
        "stamps and reads the fingerprint of each recipient's copy",
        "a leaked copy can no longer be traced to its recipient",
        "the thief can remove a fingerprint, or stamp another recipient's to frame him",
    ),
    Purpose(
        "owner",
        "publisher",
        "signing",
        "signs every sealed file and every dossier",
        "nothing new can be published under this key; a new key has to be pinned by every recipient",
        "the thief can publish models as yours until the key is unpinned everywhere",
    ),
    Purpose(
        "owner",
        "owner",
        "identity",
        "opens the sealed originals",
        "only an escrow recipient can still open them; without one the unmarked originals are gone",
        "the unmarked originals are readable, and every mark can be subtracted",
    ),
    Purpose(
        "owner",
        "channel",
        "derived",
        "signs which sealed files a release channel has, and who else signs there",
        "every host needs a new channel's root, on a way of its own",
        "the thief can release old versions of yours and revoke, and seals nothing that hosts open",
    ),
    Purpose(
        "owner",
        "oms",
        "derived",
        "signs bundles that programs without Palladion verify (OpenSSF Model Signing)",
        "bundles are signed by a new key, which whoever verifies needs",
        "the thief can sign bundles as yours; a host does not look at them",
    ),
    Purpose(
        "gate",
        "client-key-pepper",
        "derived",
        "keys the stored hashes of the clients' API keys",
        "every client needs a new API key",
        "stolen hashes can be tried against guesses; the keys hold at least 128 random bits, so none is found",
    ),
    Purpose(
        "gate",
        "answer-marks",
        "derived",
        "marks answers, so that a student names the account that trained it",
        "answers given so far can no longer be used to trace a student",
        "a thief can wash the marks out of the answers he collected",
    ),
    Purpose(
        "gate",
        "text-marks",
        "derived",
        "marks generated text, each tenant's with a key of its own",
        "text generated so far can no longer be told from other text",
        "a thief can recognise marked text, wash the mark out, and write text that carries it",
    ),
    Purpose(
        "gate",
        "canaries",
        "derived",
        "chooses which clients are served a version on trial",
        "other clients than before are chosen",
        "it can be told beforehand which client will be chosen",
    ),
    Purpose(
        "gate",
        "onsets",
        "derived",
        "puts off what follows from suspicion, for each account by another number of queries",
        "what follows from suspicion begins earlier or later than before",
        "the thief can tell how many queries after the threshold an account is throttled",
    ),
    Purpose(
        "gate",
        "work",
        "derived",
        "makes the challenges of proofs of work, and knows them again",
        "challenges that are being solved are worth nothing, and clients get others",
        "the thief can answer requests of a client without the work",
    ),
    Purpose(
        "gate",
        "decoys",
        "derived",
        "seals the rows of decoys, and recognises rows and prompts that are some",
        "decoys of rows and prompts are recognised no more; decoys that are keys go on",
        "a thief who has also the registry, or guesses, can tell which queries are decoys and leave them out",
    ),
    Purpose(
        "gate",
        "ledger-salts",
        "derived",
        "encrypts the seeds of clients, from which the digests of requests and answers in the ledger are salted",
        "digests in the ledger can no longer be matched with requests that are shown later",
        "with the seeds, digests can be matched with guessed requests, but for those of clients who were forgotten",
    ),
    Purpose(
        "gate",
        "pseudonyms",
        "derived",
        "turns client names and networks into pseudonyms in the ledger",
        "records can no longer be told apart by client, except through the registry",
        "pseudonyms can be matched with guessed names; of networks, all can be tried",
    ),
    Purpose(
        "gate",
        "body-cipher",
        "derived",
        "encrypts the retained requests and answers",
        "retained bodies are unreadable: no student can be traced with them",
        "retained bodies are readable wherever a copy of them lies",
    ),
    Purpose(
        "gate",
        "journal",
        "derived",
        "authenticates what the ledger has acknowledged and not published yet",
        "the ledger does not open: what stands behind its last checkpoint can no longer be told from a forgery",
        "a thief who can also write to this host's disk can have records of his own signed by the next checkpoint",
    ),
    Purpose(
        "gate",
        "checkpoint",
        "signing",
        "signs the ledger's checkpoints",
        "the ledger goes on under a new key; the old part stays verifiable",
        "the thief can sign a rewritten ledger; a checkpoint saved elsewhere still shows the rewrite",
    ),
    Purpose(
        "gate",
        "channel-online",
        "derived",
        "signs that a release channel is still current",
        "the owner names another in the channel: palladion release rotate",
        "the thief can hold hosts on what they have seen until the owner names another",
    ),
    Purpose(
        "gate",
        "gate",
        "identity",
        "opens the versions that this host serves",
        "the versions must be sealed again to a new host",
        "the served versions are readable by whoever also has their sealed files",
    ),
)
