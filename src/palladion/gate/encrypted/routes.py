"""The programs of a policy: opened with the gate, changed with its policy, closed with it."""

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from palladion.errors import FormatError, NotFoundError, PolicyError
from palladion.gate.encrypted.endpoint import MIB, Serving, endpoints
from palladion.gate.encrypted.shelf import Shelf
from palladion.gate.encrypted.slots import SlotBudgets
from palladion.gate.encrypted.workers import Workers
from palladion.gate.endpoint import Endpoint
from palladion.gate.stages import Stages
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation, gate_identity
from palladion.lifecycle.open import find_version, open_payload, record_opened
from palladion.lifecycle.revoke import require_unrevoked
from palladion.lifecycle.slots import SLOTS_FILE
from palladion.policy import RoutePolicy
from palladion.policy.encrypted import EncryptedPolicy
from palladion.private.homomorphic.forms import Forms
from palladion.private.homomorphic.leakage import leakage, slots_carried
from palladion.private.homomorphic.program import PROGRAM_BYTES_MAX, Program, parse_program
from palladion.registry.names import slug
from palladion.seal.recipients.identity_file import read_private_file
from palladion.seal.structure import SealedInfo

ANSWER_PARTS_BYTES = 1024  # of each ciphertext of an answer beyond its polynomials

log = logging.getLogger("palladion.gate")


class EncryptedRoutes:
    """The programs that a gate serves. Made and closed in one event loop."""

    def __init__(self, installation: Installation, stages: Stages) -> None:
        """Open those of the installation's policy; no worker is started yet.

        Raises PolicyError, and FormatError or TamperError for a file that is no program, KeysError for one that others
        may read, MissingExtraError.
        """
        self._installation, self._stages = installation, stages
        self._slots: SlotBudgets | None = None
        self._opened: dict[str, SealedInfo] = {}
        self._shelf = Shelf(bytes_max=MIB, per_client=1)
        self._serving: list[Serving] = []
        self._retired: set[asyncio.Task[None]] = set()
        self.put(self._opened_all(installation, self._serving))

    @property
    def policies(self) -> list[RoutePolicy]:
        """The routes, as status and records know them."""
        return [item.route for item in self._serving]

    @asynccontextmanager
    async def renewing(self, installation: Installation) -> AsyncIterator[list[Serving]]:
        """The programs of another policy, which are in force once they are `put`. Raises as the constructor does."""
        made = await asyncio.to_thread(self._opened_all, installation, self._serving)
        try:
            yield made
        except BaseException:
            # what is in force goes on: most of these have its workers
            running = {item.workers for item in self._serving}
            for item in made:
                if item.workers not in running:
                    await item.workers.close()
            raise

    def put(self, serving: Sequence[Serving]) -> None:
        """Answer by these from now on; `endpoints` are others then. Evaluation keys of those that stay are kept."""
        gone = [item for item in self._serving if item.workers not in {other.workers for other in serving}]
        self._serving = list(serving)
        keys_mib = max((item.policy.keys_mib for item in serving), default=1)
        per_client = max((item.policy.keys_per_client for item in serving), default=1)
        self._shelf.renew(bytes_max=keys_mib * MIB, per_client=per_client)
        self._shelf.keep({item.bundle.id for item in serving})
        self.endpoints: Mapping[str, Endpoint] = self.answering(serving)
        for item in gone:
            task = asyncio.get_running_loop().create_task(_closed_later(item))
            self._retired.add(task)
            task.add_done_callback(self._retired.discard)

    def answering(self, serving: Sequence[Serving]) -> dict[str, Endpoint]:
        """What answers on which path, by these programs. Raises PolicyError where two have one path."""
        found: dict[str, Endpoint] = {}
        for item in serving:
            slots = self._slots_file()
            for path, endpoint in endpoints(self._stages, item, self._shelf, slots).items():
                if path in found:
                    raise PolicyError(f"the path {path} is taken twice", "give one of the programs a path of its own")
                found[path] = endpoint
        return found

    def beside(self, others: Mapping[str, Endpoint], serving: Sequence[Serving] | None = None) -> dict[str, Endpoint]:
        """What answers on which path, with what `others` do. Raises PolicyError where two have one path."""
        mine = self.endpoints if serving is None else self.answering(serving)
        taken = sorted(mine.keys() & others.keys())
        if taken:
            raise PolicyError(f"the path {taken[0]} is taken twice", "give the program a path of its own")
        return {**others, **mine}

    def opened_records(self, reason: str, *, actor: str) -> list[Record]:
        """What the ledger is told of the sealed programs that were opened since it was last asked."""
        opened, self._opened = self._opened, {}
        now = self._installation.clock.now()
        return [record_opened(info, at=now, actor=actor, reason=reason) for info in opened.values()]

    def said(self, url: str) -> Iterator[str]:
        """A line for each program, and a warning where its budget is no protection."""
        for item in self._serving:
            widths = "-".join(map(str, item.bundle.header.widths))
            yield f"encrypted {url}{item.route.route}: {item.subject}, a network of {widths}"
            found = leakage(item.bundle.header.widths)
            one, most = slots_carried(item.bundle, 1, by_columns=False), item.policy.slots_per_client
            if most < one:
                yield f"warning: a ciphertext costs {one} slots, and each client may have {most}: none is answered"
            elif most >= found.unknowns:
                yield (
                    f"warning: {found.unknowns} slots recover {item.subject}, and each client may have {most} "
                    "(slots_per_client): one to three ciphertexts of a client that chooses its evaluation keys do"
                )

    async def close(self) -> None:
        """Kill every worker, and close the file of budgets."""
        for task in list(self._retired):
            task.cancel()
        await asyncio.gather(*self._retired, return_exceptions=True)
        for item in self._serving:
            await item.workers.close()
        if self._slots is not None:
            self._slots.close()

    def _slots_file(self) -> SlotBudgets:
        # not where nothing is served: then there is no such file
        if self._slots is None:
            self._slots = SlotBudgets(self._installation.paths.directory / SLOTS_FILE)
        return self._slots

    def _opened_all(self, installation: Installation, before: Sequence[Serving]) -> list[Serving]:
        known = {item.policy.model: item for item in before}
        made = []
        for policy in installation.policy.encrypted:
            if sum(policy.model == other.model for other in installation.policy.encrypted) > 1:
                raise PolicyError(f"two programs are named {policy.model}", "give each a name of its own")
            made.append(self._open(installation, policy, known.get(policy.model)))
        return made

    def _open(self, installation: Installation, policy: EncryptedPolicy, before: Serving | None) -> Serving:
        slug(policy.model, what="the model of a program for encrypted queries")
        data, subject, info = read_program(installation, policy)
        digest = hashlib.sha256(data).hexdigest()
        same = before is not None and before.digest == digest
        if before is not None and same and _same_workers(before.policy, policy):
            return Serving(policy, policy.route, before.bundle, before.forms, before.workers, subject, digest)
        program = parse_program(data)
        forms = before.forms if before is not None and same else Forms(program.bundle)
        # what they are made of is found now, where a broken library is told, and not by the first client
        forms.make()
        if info is not None:
            self._opened[policy.model] = info
        workers = Workers(
            data,
            count=policy.workers,
            memory_bytes=policy.memory_mib * MIB,
            answer_bytes_max=_answer_bytes_max(program, policy),
        )
        return Serving(policy, policy.route, program.bundle, forms, workers, subject, digest)


def not_lent(model: str) -> PolicyError:
    """Why a gate that gets its keys from a broker does not open a sealed program."""
    return PolicyError(
        f"[[encrypted]] {model}: a sealed program is opened with the gate's own key, and not with a broker's",
        "serve it from another gate, without --broker, or name a file in `program`",
    )


def read_program(installation: Installation, policy: EncryptedPolicy) -> tuple[bytes, str, SealedInfo | None]:
    """A program's file, how records name it, and what its sealed file says, if it is sealed.

    Raises KeysError for a file that others may read, NotFoundError or ConflictError where no version is promoted,
    PolicyError for a sealed program at a gate that gets its keys from a broker.
    """
    if policy.program:
        path = installation.paths.home / Path(policy.program).expanduser()
        hint = f"chmod 600 {path}: it holds the model's weights"
        data = read_private_file(path, size_max=PROGRAM_BYTES_MAX, what="the program", hint=hint)
        return data, policy.model, None
    try:
        version = find_version(installation, policy.model)
    except NotFoundError as error:
        raise NotFoundError(
            f"encrypted queries to {policy.model}: {error.message}", "name a file in `program`, or seal one"
        ) from None
    if installation.file_keys is not None:
        # `serve --broker` refuses it at its start; a policy that is reloaded may bring one later
        raise not_lent(policy.model)
    with open_payload(installation, version, gate_identity(installation.open_gate_root())) as opened:
        require_unrevoked(installation, version.model, version.number, opened.info.header_digest)
        if len(opened.files) != 1:
            raise FormatError(f"{version.model}@{version.number} has {len(opened.files)} files, expected one program")
        data = bytes(next(iter(opened.files.values())))
        return data, f"{version.model}@{version.number}", opened.info


def check_program(installation: Installation, policy: EncryptedPolicy) -> None:
    """Raise what opening a program would, as far as can be told without opening what is sealed."""
    slug(policy.model, what="the model of a program for encrypted queries")
    if policy.program:
        parse_program(read_program(installation, policy)[0])
    else:
        find_version(installation, policy.model)


def _same_workers(one: EncryptedPolicy, other: EncryptedPolicy) -> bool:
    return (one.workers, one.memory_mib, one.query_mib) == (other.workers, other.memory_mib, other.query_mib)


def _answer_bytes_max(program: Program, policy: EncryptedPolicy) -> int:
    """Bytes that an answer can have: a ciphertext for each that came, or one of three polynomials for each output."""
    bundle = program.bundle
    one = bundle.parameters.ciphertext_bytes
    interleaved = (policy.query_mib * MIB // one + 1) * (one + ANSWER_PARTS_BYTES)
    return max(interleaved, bundle.outputs * (one * 3 // 2 + ANSWER_PARTS_BYTES))


async def _closed_later(item: Serving) -> None:
    """Close workers when no request can wait for them any more."""
    try:
        await asyncio.sleep(item.policy.upload_seconds + item.policy.answer_seconds)
    finally:
        await item.workers.close()
