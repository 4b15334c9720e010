"""What a case tells others: counts and times of its accounts, and a signature of what was kept, and no name."""

import json
from dataclasses import replace
from datetime import timedelta
from functools import partial

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError
from palladion.incident.cases import suspend_case
from palladion.intel.bundle import campaign_bundle
from palladion.intel.gather import Telling, gather
from palladion.intel.sketch import row_element, sketch_of
from palladion.ledger.record import Record
from palladion.registry import Incident
from palladion.watch.taxonomy import shipped
from tests.lifecycle.installations import NOW, Made
from tests.lifecycle.students import ROWS, answered

pytestmark = pytest.mark.slow  # two models are protected first

TELLING = Telling(reporter="example.org")
gathered = partial(gather, table=shipped())


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Made, Incident]:
    """acme, who asked two and five queries, and beta, of whom only queries are kept, are in one case."""
    made = answered(tmp_path_factory.mktemp("made"))
    installation = made.installation
    with installation.open_registry() as registry, registry.write() as records:
        clients = {client.name: client.id for client in records.clients.all()}
        suspects = [clients["acme"], clients["beta"]]
        case = suspend_case(records, suspects, reason="suspicion 12.1", actor="gate").case
    gate = installation.open_gate_root()
    acme, crow = (pseudonym(gate.derive("pseudonyms"), clients[name]) for name in ("acme", "crow"))
    with installation.open_ledger(gate) as ledger:
        ledger.append(
            [
                Record("answer.given", NOW + timedelta(hours=hours), who, "fraud@1", {"queries": queries})
                for hours, who, queries in ((1, acme, 2), (2, crow, 100), (3, acme, 5))
            ]
        )
    return made, case


def test_answers_of_its_accounts_are_counted(made: tuple[Made, Incident]) -> None:
    facts = gathered(made[0].installation, made[1], TELLING)
    assert (facts.accounts, facts.answers) == (2, 7)
    assert (facts.first_seen, facts.last_seen) == (NOW + timedelta(hours=1), NOW + timedelta(hours=3))
    assert facts.references[1].id == "AML.T0021"
    assert facts.sketch is None


def test_who_was_found_to_be_honest_is_left_out(made: tuple[Made, Incident]) -> None:
    case = made[1]
    acme, beta = case.clients
    alone = [gathered(made[0].installation, replace(case, cleared=(cleared,)), TELLING) for cleared in (acme, beta)]
    assert sorted((facts.accounts, facts.answers) for facts in alone) == [(1, 0), (1, 7)]
    assert "AML.T0021" not in {each.id for each in alone[0].references}
    for nobody in (replace(case, cleared=case.clients), replace(case, clients=())):
        with pytest.raises(ConflictError, match="concerns no client"):
            gathered(made[0].installation, nobody, TELLING)


def test_the_signature_is_of_all_that_was_kept(made: tuple[Made, Incident]) -> None:
    salt = b"s" * 16
    facts = gathered(made[0].installation, made[1], replace(TELLING, signature=True, salt=salt))
    assert facts.sketch == sketch_of([row_element(row) for row in ROWS], salt=salt)


def test_nothing_of_customers_is_in_the_bundle(made: tuple[Made, Incident]) -> None:
    installation, case = made[0].installation, made[1]
    told = campaign_bundle(gathered(installation, case, replace(TELLING, signature=True))).decode()
    key = installation.open_gate_root().derive("pseudonyms")
    for client in case.clients:
        assert client not in told
        assert pseudonym(key, client).removeprefix("client:") not in told
    for word in ("acme", "beta", "client:", "fraud", str(installation.paths.home), case.title):
        assert word not in told
    assert case.id not in told
    assert json.loads(told)["type"] == "bundle"


def test_the_same_case_gives_the_same_bundle(made: tuple[Made, Incident]) -> None:
    first, second = (campaign_bundle(gathered(made[0].installation, made[1], TELLING)) for _ in range(2))
    assert first == second


def test_without_kept_queries_there_is_no_signature(made: tuple[Made, Incident]) -> None:
    installation = made[0].installation
    with installation.open_registry() as registry, registry.read() as records:
        crow = next(client.id for client in records.clients.all() if client.name == "crow")
    with pytest.raises(ConflictError, match="nothing is kept"):
        gathered(installation, replace(made[1], clients=(crow,)), replace(TELLING, signature=True))
