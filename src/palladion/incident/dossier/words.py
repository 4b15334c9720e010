"""Records in words, for readers who do not read JSON; what has no words here is shown as it is."""

from collections.abc import Mapping
from typing import Any

from palladion.incident.dossier.document import described
from palladion.lifecycle.prove import LOG10_P_MAX

RESULT_CHARACTERS_MAX = 400


def said(kind: str, told: Mapping[str, Any]) -> str | None:
    """What a record of this kind says; None if only its details can."""
    match kind:
        case "incident.opened":
            return f"a case about {_counted(told.get('clients'), 'account')}"
        case "standing.changed" | "standing.proposed":
            return f"{told.get('from')} → {told.get('to')}: {told.get('reason')}"
        case "custody.recorded":
            return f"{told.get('step')}: {told.get('source')}"
        case "answer.given" | "answer.begun":
            return f"{_counted(told.get('queries', 1), 'query', 'queries')} answered on {told.get('route')}"
        case "answer.refused":
            return f"{_counted(told.get('requests'), 'request')} refused: {told.get('reason')}"
        case "client.added" | "client.changed":
            scopes = told.get("scopes")
            return f"may ask {', '.join(map(str, scopes)) or 'everything' if isinstance(scopes, list) else scopes}"
        case "decoy.touched":
            return f"a decoy was touched {_counted(told.get('touches'), 'time')}"
        case "client.key-added":
            return f"got the key {told.get('prefix')}…"
        case "dossier.written" | "dossier.stamped":
            return f"manifest {told.get('manifest')}"
    return str(told["text"]) if "text" in told else None


def found(item: Mapping[str, Any]) -> str:
    """What a test found of one version: its p-value and whether that is a finding, and whom it names."""
    if not isinstance(item.get("version"), str) or not isinstance(item.get("log10_p"), str):
        return described(item, RESULT_CHARACTERS_MAX)
    words = f"{item['version']}: log10 p {item['log10_p']}, {_verdict(item['log10_p'])}"
    if "matches" in item:
        words += f"; {item['matches']} of {item.get('answered')} answers match"
    accused = item.get("accused")
    if item.get("recipients"):
        named = [
            f"{who.get('recipient')} (log10 p {who.get('log10_p')})" for who in accused or () if isinstance(who, dict)
        ]
        words += f"; {_counted(item['recipients'], 'recipient')} tested, named: {', '.join(named) or 'nobody'}"
    return words


def _verdict(log10_p: str) -> str:
    try:
        return "a finding" if float(log10_p) <= LOG10_P_MAX else "no finding"
    except ValueError:
        return "not a number"


def _counted(number: object, one: str, many: str = "") -> str:
    return f"{number} {one if number == 1 else many or f'{one}s'}"
