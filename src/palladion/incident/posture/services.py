"""Checks of what happens at the gate: who comes in, what is limited and shown, what is noticed, who is told."""

from palladion.incident.posture.findings import Finding, judged, of_people, to_record
from palladion.incident.posture.view import View, name_of

_FOR_ALL = ("queries_per_second", "queries_per_day", "tokens_per_day", "information_per_day")


def encryption_in_transit(view: View) -> Finding:
    """TLS of the gate, or of a proxy before it; a gate on the loopback alone is nobody's to listen to."""
    gate = view.policy.gate
    plain = [route.route for route in view.policy.route if route.upstream_insecure_http]
    loopback = gate.listen.startswith(("127.", "[::1]", "localhost:", "unix:"))
    shown = "TLS by the gate" if gate.tls_certificate else "only this machine reaches the gate"
    gap = "plain HTTP is served, for a proxy in front" if gate.behind_proxy else "the gate has no certificate"
    return judged(
        [
            (bool(gate.tls_certificate) or loopback, shown, gap, "tls_certificate under [gate] (docs/gate.md)"),
            (
                not plain,
                "no model server is asked in plain HTTP",
                f"in plain HTTP to model servers: {', '.join(plain)}",
                "upstream_ca instead of upstream_insecure_http (docs/gate.md)",
            ),
        ]
    )


def identity(view: View) -> Finding:
    """No route answers a stranger; what else decides is policy."""
    seen = view.newest.get("client.added")
    started = view.newest.get("gate.started")
    return judged(
        [
            (
                started is not None,
                f"a gate answers nobody unknown: {started}",
                "no gate was started",
                "palladion serve",
            ),
            (seen is not None, f"callers have names: {seen}", "no caller is registered", "palladion client add NAME"),
            (
                bool(view.policy.access.policies),
                "policies decide who may ask for what",
                "scopes alone decide who may ask for what",
                "policies under [access] (docs/access.md)",
            ),
        ]
    )


def operators(view: View) -> Finding:
    """Roles for those who look after the gate, and a second person for what lowers protection."""
    seen = view.newest.get("operator.added")
    rules = view.policy.operators
    named = bool(rules.issuer) or view.operators > 0
    return judged(
        [
            (
                named,
                f"{view.operators} operators with roles" + (f": {seen}" if seen else ""),
                "whoever may use this machine may do everything",
                "palladion operator add NAME --role ROLE (docs/operators.md)",
            ),
            (
                view.operators > 1 or bool(rules.issuer),
                "a second person can decide on what lowers protection",
                "no second person could decide on what lowers protection",
                "palladion operator add NAME --role approver",
            ),
        ]
    )


def limits(view: View) -> Finding:
    """Rates, and budgets of a day."""
    rules = view.policy.limits
    days = [name for name in _FOR_ALL[1:] if getattr(rules, name)]
    return judged(
        [
            (
                rules.queries_per_second > 0,
                f"{rules.queries_per_second:g} queries a second of a client",
                "a client may ask as fast as it can",
                "queries_per_second under [limits] (docs/limits.md)",
            ),
            (
                bool(days) or view.policy.watch.information_budget > 0,
                "budgets: " + ", ".join(days or ["information_budget"]),
                "no budget of a day: a slow thief is never stopped",
                "information_per_day or information_budget (docs/limits.md)",
            ),
        ]
    )


def disclosure(view: View) -> Finding:
    """Whether routes promise less than everything."""
    full = [
        route.route
        for route in view.policy.route
        if route.protocol != "openai" and route.answer == "scores" and not route.decimals and not route.top_k
    ]
    told = [route.route for route in view.policy.route if route.protocol == "openai" and route.logprobs]
    if not view.policy.route:
        return Finding("off", open="no route is served", close="[[route]] (docs/gate.md)")
    return judged(
        [
            (
                not full,
                "every route gives labels, or rounded or few scores",
                f"all scores with all digits: {', '.join(full)}",
                "decimals, top_k or answer = label of a route (palladion disclose measure says what each costs)",
            ),
            (
                not told,
                "no language model gives log probabilities",
                f"log probabilities are given: {', '.join(told)}",
                "logprobs = 0 of a route (docs/chat.md)",
            ),
        ]
    )


def answer_marks(view: View) -> Finding:
    """Whether answers are marked, so that a student names the account that trained it."""
    marked = [route.route for route in view.policy.route if route.flipped > 0]
    gap = "no route marks its answers"
    close = "flipped = 0.03 of a route (docs/marks.md); it turns that share of labels"
    return judged([(bool(marked), f"answers are marked: {', '.join(marked)}", gap, close)])


def usage_analysis(view: View) -> Finding:
    """Whether the watch is calibrated for what is served, and on whom."""
    names = [name_of(item) for item in view.served]
    missing = [name for name in names if name not in view.calibrated]
    simulated = [name for name, real in view.calibrated.items() if not real]
    if not names:
        return Finding("off", open="no version is served", close="palladion model promote MODEL VERSION")
    close = "palladion watch calibrate MODEL (docs/watch.md)"
    known = len(names) - len(missing)
    return judged(
        [
            (known > 0, f"{known} of {len(names)} served versions are calibrated", "no version is calibrated", close),
            (not missing, "all that is served is watched", f"uncalibrated: {', '.join(missing)}", close),
            (
                known > 0 and not simulated,
                "real clients calibrated it",
                f"calibrated on simulated clients: {', '.join(simulated) or 'none'}",
                "palladion watch calibrate MODEL --retained (docs/watch.md)",
            ),
        ]
    )


def automatic_response(view: View) -> Finding:
    """Whether routes enforce what the watch says."""
    if not view.policy.route:
        return Finding("off", open="no route is served", close="[[route]] (docs/gate.md)")
    observing = [route.route for route in view.policy.route if route.mode != "enforce"]
    enforcing = len(view.policy.route) - len(observing)
    changed = view.newest.get("standing.changed")
    shown = f"{enforcing} routes enforce" + (f"; {changed}" if changed else "")
    close = "mode = enforce of a route, after palladion policy dry-run"
    return judged(
        [
            (enforcing > 0, shown, "no route enforces", close),
            (not observing, "none only observes", f"only observed: {', '.join(observing)}", close),
        ]
    )


def alerts(view: View) -> Finding:
    """Whether anybody is told, and the next one if nobody comes."""
    channels, levels = len(view.policy.alert), len(view.policy.oncall.levels)
    return judged(
        [
            (channels > 0, f"{channels} channels", "nobody is told of anything", "[[alert]] (docs/alerts.md)"),
            (levels > 0, f"{levels} levels on call", "nobody is next if nobody comes", "[oncall] (docs/alerts.md)"),
        ]
    )


def decoys(view: View) -> Finding:
    """Whether something lies out that nobody honest touches."""
    seen = view.newest.get("decoy.added")
    close = "palladion decoy add --help (docs/decoys.md)"
    return judged([(view.decoys > 0, f"{view.decoys} decoys; {seen}", "no decoy lies out", close)])


def forensic_logs(view: View) -> Finding:
    """The ledger is always on; whether it is taken where it is looked at is for others."""
    seen = view.newest.get("gate.started")
    return judged(
        [
            (True, "every act and answer is an entry of the ledger", "", ""),
            (seen is not None, f"answers are recorded: {seen}", "no gate was started", "palladion serve"),
        ]
    )


def witnesses(view: View) -> Finding:
    """Who vouches that the ledger was not rewritten by its owner."""
    rules = view.policy.ledger
    gap = "whoever has the ledger's key could rewrite it, and nobody would know"
    close = "witnesses under [ledger] (docs/ledger.md)"
    return judged(
        [(bool(rules.witnesses), f"{len(rules.witnesses)} witnesses, {rules.witness_quorum} needed", gap, close)]
    )


def threat_intelligence(view: View) -> Finding:
    """Whether feeds are read."""
    gap, close = "no feed is read", "[[feed]] (docs/threat_intelligence.md)"
    return judged([(bool(view.policy.feed), f"{len(view.policy.feed)} feeds", gap, close)])


def containers(view: View) -> Finding:
    """How the gate is shut in is not seen from inside; a person says so."""
    found = view.in_force("technical")
    if found:
        return Finding("on", (of_people(found),))
    if over := view.over("technical"):
        return Finding("expired", (of_people(over),), "what was recorded has expired", to_record("technical"))
    gap = "how the gate is shut in cannot be seen from inside, and nobody recorded it"
    return Finding("needs a person", (), gap, "palladion deploy --help, then " + to_record("technical"))
