"""Checks of what happens to models and keys: sealed, marked, traced, versioned, kept."""

from datetime import timedelta

from palladion.incident.posture.findings import Finding, State, judged, of_people, to_record
from palladion.incident.posture.view import View, came_of, name_of
from palladion.lifecycle.doctor import BACKUP_AGE_MAX
from palladion.lifecycle.privacy import stated_of

SWEEP_AGE_MAX = timedelta(days=30)  # as of a backup: what was careless a month ago is not known to be in order
_DEVICES = frozenset({"pkcs11", "aws-kms", "gcp-kms", "azure-kv", "vault-transit", "tpm"})


def encryption_at_rest(view: View) -> Finding:
    """Every version is sealed: there is no other way into the registry."""
    shown = f"{view.versions} versions, all sealed (AES-256)"
    return judged([(view.versions > 0, shown, "no model is protected", "palladion protect MODEL")])


def hardware_keys(view: View) -> Finding:
    """Whether a root or a served file opens by a device or a key service."""
    used = sorted(view.wraps & _DEVICES)
    gap = "all keys open by files and passphrases"
    close = "palladion rewrap or key rewrap, to a device (docs/keys.md: keys that stay in an HSM or a cloud)"
    return judged([(bool(used), "keys wrapped to " + ", ".join(used), gap, close)])


def stolen_hardware(view: View) -> Finding:
    """Sealed files, keys in devices, and doors that people lock."""
    doors = view.in_force("physical")
    return judged(
        [
            (view.versions > 0, "models are sealed on disk", "no model is protected", "palladion protect MODEL"),
            (
                bool(view.wraps & _DEVICES),
                "keys need a device or a key service",
                "a disk with its host identity opens what that host may open",
                "palladion key rewrap, to a device (docs/keys.md)",
            ),
            (bool(doors), of_people(doors), "nobody recorded who guards the machines", to_record("physical")),
        ]
    )


def storage(view: View) -> Finding:
    """Sealed models, and a search for careless copies of this month that left nothing grave open."""
    seen = view.newest.get("storage.scanned")
    close = "palladion scan storage PLACE... (docs/storage.md)"
    fresh = seen is not None and view.moment - seen.record.time <= SWEEP_AGE_MAX
    gap = "nothing looks for plaintext copies in buckets, caches and images"
    grave = 0
    if seen is not None:
        counts = seen.record.details.get("findings")
        told = counts if isinstance(counts, dict) else {}
        grave = sum(int(told.get(severity, 0)) for severity in ("critical", "high"))
        if not fresh:
            gap = f"the last search for plaintext copies is {(view.moment - seen.record.time).days} days old"
    return judged(
        [
            (view.versions > 0, "models lie sealed here", "no model is protected", "palladion protect MODEL"),
            (fresh, f"places were searched for careless copies: {seen}", gap, close),
            (
                fresh and not grave,
                "the last search left nothing grave open",
                f"the last search found {grave} things that are critical or high" if fresh else gap,
                "do what palladion scan storage says of each, and search again",
            ),
        ]
    )


def supply_chain(view: View) -> Finding:
    """`protect` scans every model; dependencies are for others to watch."""
    seen = view.newest.get("model.protected") or view.newest.get("model.sealed")
    close = "palladion protect MODEL, which scans it first"
    return judged([(seen is not None, f"scanned before it was sealed: {seen}", "no model was scanned", close)])


def watermarks(view: View) -> Finding:
    """Whether each served version carries marks."""
    bare = [name_of(item) for item in view.served if not item.marks]
    if not view.served:
        return Finding("off", open="no version is served", close="palladion model promote MODEL VERSION")
    shown = f"{len(view.served) - len(bare)} of {len(view.served)} served versions are marked"
    if len(bare) == len(view.served):
        return Finding("off", open="no served version is marked", close="palladion protect MODEL (docs/marks.md)")
    gap = f"without a mark: {', '.join(bare)}"
    return Finding("partly" if bare else "on", (shown,), gap if bare else "", "palladion protect MODEL" if bare else "")


def tracing(view: View) -> Finding:
    """Whether copies that leave name their recipient."""
    seen = view.newest.get("model.delivered")
    if seen is None:
        return Finding("off", open="no copy was delivered, so none could leak", close="palladion deliver MODEL NAME")
    marked = bool(seen.record.details.get("fingerprinted"))
    gap = "the newest copy carries no fingerprint"
    return judged(
        [
            (True, f"deliveries are recorded: {seen}", "", ""),
            (marked, "the newest copy carries its recipient's fingerprint", gap, "palladion deliver MODEL NAME"),
        ]
    )


def versions(view: View) -> Finding:
    """Whether what is served was promoted, on record."""
    seen = view.newest.get("model.promoted")
    close = "palladion model promote MODEL VERSION"
    return judged([(seen is not None, f"{view.versions} versions; {seen}", "no version was promoted", close)])


def hardening(view: View) -> Finding:
    """Whether each served version came of a hardening after which the best student got less."""
    if not view.served:
        return Finding("off", open="no version is served", close="palladion model promote MODEL VERSION")
    made: list[str] = []
    gaps: list[str] = []
    for item in view.served:
        name = name_of(item)
        seen = view.hardened.get(name)
        outcome = "" if seen is None else str(seen.record.details.get("outcome"))
        if seen is None:
            gaps.append(f"{name} was not hardened")
        elif not came_of(item, seen):
            gaps.append(f"{name} did not come of what was tried last: {seen}, {outcome}")
        elif outcome != "benefit":
            gaps.append(f"{name} came of a hardening without a benefit: {seen}, {outcome}")
        else:
            made.append(f"{name}: {seen}, {seen.record.details.get('method')}")
    state: State = "on" if not gaps else "partly" if made else "off"
    close = "palladion harden FILE --training FILE --out FILE --name MODEL (docs/harden.md)" if gaps else ""
    return Finding(state, tuple(made), "; ".join(gaps), close)


def differential_privacy(view: View) -> Finding:
    """Whether each served version was trained privately, by what was stated of it; noise on answers is told beside.

    A statement is a claim. Noise counts for the whole only where it assumes nothing of the model (docs/privacy.md).
    """
    if not view.served:
        return Finding("off", open="no version is served", close="palladion model promote MODEL VERSION")
    noisy = {route.model: route.privacy for route in view.policy.route if route.privacy.is_on}
    shown: list[str] = []
    gaps: list[str] = []
    for item in view.served:
        name, noise = name_of(item), noisy.get(item.model)
        stated = stated_of(item)
        if stated is not None:
            shown.append(f"{name}: trained with {stated}")
        if noise is not None:
            shown.append(f"{name}: {noise.mechanism}, ε {noise.epsilon:g} an answer, {noise.epsilon_total:g} in all")
        if stated is None and (noise is None or noise.sensitivity < 1):
            assumed = "" if noise is None else ", and the noise on its answers is for an assumed sensitivity"
            gaps.append(f"nothing is stated of the privacy of {name}{assumed}")
    state: State = "on" if not gaps else "partly" if shown else "off"
    close = "palladion private train, and palladion protect MODEL --privacy STATEMENT (docs/privacy.md)" if gaps else ""
    return Finding(state, tuple(shown), "; ".join(gaps), close)


def homomorphic(view: View) -> Finding:
    """Whether models answer encrypted queries, each with a lifetime budget."""
    programs = view.policy.encrypted
    if not programs:
        close = "palladion private compile MODEL, and [[encrypted]] (docs/homomorphic.md)"
        return Finding("off", open="no model answers encrypted queries", close=close)
    shown = [f"{item.model}: {item.slots_per_client} slots a client, {item.slots_total} in all" for item in programs]
    return Finding("on", tuple(shown))


def trusted_execution(view: View) -> Finding:
    """Whether keys are released to machines that prove themselves, and whether that has happened."""
    rules = view.policy.broker.release
    proved = [rule.model for rule in rules if rule.attestation]
    bare = [rule.model for rule in rules if not rule.attestation]
    seen = view.newest.get("broker.released")
    close = "[[broker.release]] with attestation, and palladion key-broker serve (docs/broker.md)"
    return judged(
        [
            (bool(proved), f"keys need evidence of hardware: {', '.join(proved)}", "no key needs evidence", close),
            (not bare, "no key is released without evidence", f"keys without evidence: {', '.join(bare)}", close),
            (seen is not None, f"a key was released: {seen}", "no key was released yet", close),
        ]
        if rules
        else [(False, "", "keys are not released by a machine's evidence", close)]
    )


def federated_learning(view: View) -> Finding:
    """Whether sites have trained together, on record."""
    seen = view.newest.get("federation.round")
    if seen is None:
        return Finding("off", open="no sites have trained together", close="docs/federated.md says how")
    return Finding("on", (str(seen),))


def recovery(view: View) -> Finding:
    """Whether there is a backup of this month."""
    seen = view.newest.get("backup.made")
    if seen is None:
        return Finding("off", open="there is no backup", close="palladion backup FOLDER")
    age = view.moment - seen.record.time
    if age > BACKUP_AGE_MAX:
        return Finding("expired", (str(seen),), f"the last backup is {age.days} days old", "palladion backup FOLDER")
    return Finding("on", (str(seen),))


def audits(view: View) -> Finding:
    """Whether each served version was attacked lately, and held."""
    if not view.served:
        return Finding("off", open="no version is served", close="palladion model promote MODEL VERSION")
    limit = timedelta(days=view.policy.redteam.overdue_days)
    names = [name_of(item) for item in view.served]
    known = [name for name in names if name in view.audits]
    late = [name for name in known if view.moment - view.audits[name].record.time > limit]
    failed = [name for name in known if view.audits[name].record.details["verdict"] != "pass" and name not in late]
    shown = tuple(f"{name}: {view.audits[name]}, {view.audits[name].record.details['verdict']}" for name in known)
    gaps = [
        *(f"{name} was never audited" for name in names if name not in known),
        *(f"the audit of {name} is older than {limit.days} days" for name in late),
        *(f"the audit of {name} did not pass" for name in failed),
    ]
    if not gaps:
        return Finding("on", shown)
    state: State = "off" if not known else "expired" if len(late) == len(names) else "partly"
    return Finding(state, shown, "; ".join(gaps), "palladion redteam run MODEL --rows FILE (docs/redteam.md)")


def attacked(view: View, stage: str) -> Finding:
    """Whether newest audits of the served versions tried one attack, and what came of it."""
    limit = timedelta(days=view.policy.redteam.overdue_days)
    fresh = {name: seen for name, seen in view.audits.items() if view.moment - seen.record.time <= limit}
    tried = {
        name: f"{name}: {told[stage]} ({seen})"
        for name, seen in fresh.items()
        if isinstance(told := seen.record.details.get("stages"), dict) and stage in told
    }
    served = [name_of(item) for item in view.served]
    missing = [name for name in served if name not in tried]
    close = f"palladion redteam run MODEL --rows FILE: the stage {stage} (docs/redteam.md)"
    gap = f"not tried lately against {', '.join(missing)}" if served else "no version is served"
    return judged([(bool(served) and not missing, "; ".join(tried.values()), gap, close)])
