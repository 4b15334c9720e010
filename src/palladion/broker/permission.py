"""Which client may have the key of which file, and for what: policies in Cedar over a schema of the broker's own.

Nothing is permitted unless a policy permits it, and `forbid` wins. A policy that fails permits nothing.
"""

from pathlib import Path
from typing import Any, NamedTuple

from palladion import files
from palladion.access.cedar import POLICIES_BYTES_MAX
from palladion.errors import PolicyError

SCHEMA = """
entity Organisation;
entity Client in [Organisation] { organisation: String, name: String, standing: String };
entity Model;
entity File in [Model] { version: Long, recipient: String };
action release appliesTo {
  principal: [Client], resource: [File],
  context: { purpose: String, attested: Bool, approvals: Long }
};
"""
_HINT = "a Client may release a File of a Model: docs/broker.md has examples"


class Question(NamedTuple):
    """May this client have this file's key, for that purpose? `approvals` is how many have to agree besides."""

    organisation: str
    name: str
    standing: str
    model: str
    version: int
    file_id: str
    recipient: str
    purpose: str
    attested: bool
    approvals: int


class Permission:
    """The policies of a file, as they stand there now: a change counts from the next request on."""

    def __init__(self, path: Path) -> None:
        """Raises PolicyError or StorageError for policies that cannot be used."""
        self._path = path
        self._data = b""
        self._policies: Any = None
        self._schema: Any = None
        self._renew()

    def permits(self, question: Question) -> bool:
        """Whether a policy permits it and none forbids it. Raises PolicyError where the file is broken."""
        import cedarpy

        self._renew()
        result = cedarpy.is_authorized(_request(question), self._policies, _entities(question), self._schema)
        # Cedar skips a policy that fails while it is evaluated: a `forbid` that fails must not let anybody in
        return bool(result.allowed and not result.diagnostics.errors)

    def _renew(self) -> None:
        import cedarpy

        data = files.read_limited(self._path, size_max=POLICIES_BYTES_MAX, what="the broker's policies")
        if data == self._data and self._policies is not None:
            return
        self._policies = None
        try:
            text = data.decode("utf-8")
            policies = cedarpy.PolicySet.from_str(text)
        except ValueError as error:  # UnicodeDecodeError is one
            raise PolicyError(f"{self._path} is not Cedar: {error}", _HINT) from None
        if policies.templates():
            raise PolicyError(f"{self._path}: a template (with ?principal or ?resource) is never linked")
        schema = cedarpy.Schema.from_str(SCHEMA)
        checked = cedarpy.validate_policies(text, schema)
        if not checked.validation_passed:
            first = checked.errors[0].error if checked.errors else "it does not fit the schema"
            raise PolicyError(f"{self._path}: {first}", _HINT)
        self._data, self._policies, self._schema = data, policies, schema


def _request(question: Question) -> dict[str, Any]:
    return {
        "principal": {"type": "Client", "id": f"{question.organisation}/{question.name}"},
        "action": {"type": "Action", "id": "release"},
        "resource": {"type": "File", "id": question.file_id},
        "context": {
            "purpose": question.purpose,
            "attested": question.attested,
            "approvals": question.approvals,
        },
    }


def _entities(question: Question) -> list[dict[str, Any]]:
    organisation = {"type": "Organisation", "id": question.organisation}
    model = {"type": "Model", "id": question.model}
    return [
        {"uid": organisation, "attrs": {}, "parents": []},
        {"uid": model, "attrs": {}, "parents": []},
        {
            "uid": {"type": "File", "id": question.file_id},
            "attrs": {"version": question.version, "recipient": question.recipient},
            "parents": [model],
        },
        {
            "uid": {"type": "Client", "id": f"{question.organisation}/{question.name}"},
            "attrs": {
                "organisation": question.organisation,
                "name": question.name,
                "standing": question.standing,
            },
            "parents": [organisation],
        },
    ]
