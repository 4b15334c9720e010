"""What a gate serves, as an OpenAPI 3.1 document: paths, questions and answers by the models' ports, and problems.

A pure function of what was opened. The gate itself does not serve it: GET on a route says the same to whoever may ask
there, and a page about all routes would have to be cut to each client. Source: spec.openapis.org/oas/v3.1.0.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from palladion.gate.app import HEALTH_PATHS
from palladion.gate.chat.kinds import KINDS
from palladion.gate.contract import LABEL
from palladion.gate.problems import MEDIA_TYPE, PROBLEMS
from palladion.gate.protocols.json_paths import JsonPaths
from palladion.gate.protocols.open_inference import model_paths
from palladion.gate.protocols.tensors import DATATYPES, shown_shape
from palladion.gate.questions import about
from palladion.gate.served import Served, disclosable
from palladion.model.run import STRING, Port
from palladion.policy import Policy, RoutePolicy
from palladion.private.homomorphic.envelope import MEDIA_TYPE as ENCRYPTED

VERSION = "3.1.0"
TITLE = "Palladion gate"
FLOAT_MAX: Mapping[str, float] = {"float16": 65504.0, "float32": 3.4028234663852886e38}
REFERENCE = "#/components/schemas/{name}"

Schema = dict[str, Any]


def document(policy: Policy, served: Iterable[Served]) -> Schema:
    """The document of a policy whose routes were opened; routes at upstreams that describe themselves are told so.

    Programs for encrypted queries need not be opened: only their clients know what is asked and answered.
    """
    opened = {item.route.route: item for item in served}
    rows_max = policy.gate.rows_max
    paths: Schema = {path: {"get": _health(path)} for path in sorted(HEALTH_PATHS)}
    for route in policy.route:
        item = opened.get(route.route)
        if route.protocol == "openai":
            paths |= _language(route)
        elif route.protocol == "open-inference":
            paths |= _inference(route, item, rows_max)
        elif item is not None:
            protocol = item.protocol
            asked = _json(item, protocol, rows_max) if isinstance(protocol, JsonPaths) else _predict(item, rows_max)
            paths[route.route] = {"get": _describe(route), "post": asked}
    for program in policy.encrypted:
        paths |= _encrypted(program.route)
    return {
        "openapi": VERSION,
        "info": {"title": TITLE, "version": "1", "description": "Every path but the two of health wants a credential."},
        "paths": paths,
        "security": [{name: []} for name in _security(policy)],
        "components": {
            "schemas": {"Problem": _problem(), **_language_schemas(policy)},
            "responses": {
                str(status): _refusal(status) for status in sorted({status for status, _ in PROBLEMS.values()})
            },
            "securitySchemes": _security(policy),
        },
    }


def array_schema(port: Port, *, rows_max: int | None = None) -> Schema:
    """The lists in lists of a port, row by row; with `rows_max`, as a question holds them."""
    sizes = list(port.shape)
    schema = _element(port.dtype)
    for size in reversed(sizes[1:]):
        schema = {"type": "array", "items": schema}
        if isinstance(size, int):
            schema |= {"minItems": size, "maxItems": size}
    rows: Schema = {"type": "array", "items": schema}
    if rows_max is not None:
        first = sizes[0] if sizes and isinstance(sizes[0], int) else None
        rows |= {"minItems": first or 1, "maxItems": first or rows_max}
    return rows


def _element(dtype: str) -> Schema:
    if dtype in {STRING, "bool"}:
        return {"type": "string" if dtype == STRING else "boolean"}
    if "int" in dtype:
        bits, signed = int(dtype.lstrip("uint")), not dtype.startswith("u")
        low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
        return {"type": "integer", "minimum": low, "maximum": high}
    limit = FLOAT_MAX.get(dtype)
    return {"type": "number"} if limit is None else {"type": "number", "minimum": -limit, "maximum": limit}


def _outputs(item: Served) -> list[Port]:
    """What clients can get something of, by whatever standing: of a type, and in shapes that disclosure decides."""
    ports = {port.name: port for port in item.source.outputs}
    return [ports.get(name, Port(LABEL, "int64", (None,))) for name in disclosable(item.contract)]


def _predict(item: Served, rows_max: int) -> Schema:
    inputs = {port.name: array_schema(port, rows_max=rows_max) for port in item.source.inputs}
    whole = next(iter(inputs.values())) if len(inputs) == 1 else _object(inputs, required=True)
    outputs = {port.name: array_schema(port) for port in _outputs(item)}
    answer: Schema = {"model": {"const": item.route.model}, "version": {"type": ["integer", "string"]}}
    return _ask(
        item.route,
        _object({"inputs": whole}, required=True),
        _object({**answer, "outputs": _object(outputs)}, required=True),
    )


def _json(item: Served, protocol: JsonPaths, rows_max: int) -> Schema:
    request, answer = protocol.schemas(lambda port: array_schema(port)["items"], rows_max)
    return _ask(item.route, request, answer)


def _inference(route: RoutePolicy, item: Served | None, rows_max: int) -> Schema:
    version = "" if item is None else item.version_text
    found: Schema = {}
    for path, action in model_paths(route.path.rstrip("/"), route.model, version).items():
        if action == "ask":
            found[path] = {"post": _inference_ask(route, item, rows_max)}
        else:
            # about servers and readiness, 503 is an answer as well
            page = _page({"type": "object"})
            found[path] = {"get": _operation("Metadata of the model, or of the server", {"200": page, "503": page})}
    return found


def _inference_ask(route: RoutePolicy, item: Served | None, rows_max: int) -> Schema:
    given = [] if item is None else list(item.source.inputs)
    inputs = [_tensor(port, rows_max) for port in given]
    names = [] if item is None else [port.name for port in about(item).outputs]
    output = _object({"name": {"enum": names} if names else {"type": "string"}})
    request = _object(
        {
            "id": {"type": "string", "maxLength": 256},
            "inputs": {"type": "array", "items": {"anyOf": inputs} if inputs else {"type": "object"}, "minItems": 1},
            "outputs": {"type": "array", "items": {**output, "required": ["name"]}, "uniqueItems": True},
        }
    )
    answer = _object({"outputs": {"type": "array", "items": {"type": "object"}}}, more=True, required=True)
    return _ask(route, {**request, "required": ["inputs"]}, answer)


def _tensor(port: Port, rows_max: int) -> Schema:
    count = len(shown_shape(port))
    shape = {
        "type": "array",
        "items": {"type": "integer", "minimum": 0, "maximum": rows_max * 2**20},
        "minItems": count,
    }
    fields: Schema = {
        "name": {"const": port.name},
        "datatype": {"const": DATATYPES[port.dtype]},
        "shape": {**shape, "maxItems": count},
        "data": {"type": "array", "description": "flat, or nested as the shape says"},
    }
    return _object(fields, required=True)


def _language(route: RoutePolicy) -> Schema:
    prefix = route.path.rstrip("/")
    found: Schema = {}
    for path, kind in KINDS.items():
        reference = {"$ref": REFERENCE.format(name=kind.asked.__name__)}
        found[prefix + path] = {"post": _ask(route, reference, {"type": "object"}, media_types=("text/event-stream",))}
    for path in (f"{prefix}/v1/models", f"{prefix}/v1/models/{route.model}"):
        found[path] = {"get": _operation("Models that the client may ask", {"200": _page({"type": "object"})})}
    return found


def _encrypted(route: RoutePolicy) -> Schema:
    """The three paths of a program: what goes there is an envelope (docs/homomorphic.md), which no schema describes."""
    body = {"required": True, "content": {ENCRYPTED: {}}}
    keys = _object({"keys": {"type": "string"}, "program": {"type": "string"}}, required=True)
    bundle, answer = {"description": "the bundle", "content": {ENCRYPTED: {}}}, _answered({ENCRYPTED: {}})
    return {
        route.route: {"get": _operation(f"The bundle of {route.model}, for clients", {"200": bundle})},
        f"{route.route}/keys": {
            "put": {**_operation("Keep the client's evaluation keys", {"200": _page(keys)}), "requestBody": body}
        },
        f"{route.route}/query": {
            "post": {**_operation(f"Ask {route.model} under encryption", {"200": answer}), "requestBody": body}
        },
    }


def _language_schemas(policy: Policy) -> Schema:
    if all(route.protocol != "openai" for route in policy.route):
        return {}
    _, schemas = msgspec.json.schema_components([kind.asked for kind in KINDS.values()], ref_template=REFERENCE)
    return schemas


def _ask(route: RoutePolicy, request: Schema, answer: Schema, *, media_types: Sequence[str] = ()) -> Schema:
    # without a schema: to some readers it would be one of the whole text, to others one of each event
    page = _answered({"application/json": {"schema": answer}, **{kind: {} for kind in media_types}})
    body = {"required": True, "content": {"application/json": {"schema": request}}}
    return {**_operation(f"Ask {route.model}", {"200": page}), "requestBody": body}


def _answered(content: Schema) -> Schema:
    """An answer that the ledger has on record."""
    headers = {
        "Palladion-Request": {"schema": {"type": "string"}, "description": "the request's id, as the ledger has it"},
        "Palladion-Receipt": {"schema": {"type": "string"}, "description": "the entry of the ledger that records it"},
    }
    return {"description": "the answer", "content": content, "headers": headers}


def _describe(route: RoutePolicy) -> Schema:
    return _operation(f"Names, types and shapes of {route.model}; costs one query", {"200": _page({"type": "object"})})


def _health(path: str) -> Schema:
    page = _page(_object({"ok": {"type": "boolean"}}, required=True))
    name = path.rpartition("/")[2]
    return {"summary": f"Whether it is {name}", "security": [], "responses": {"200": page, "503": page}}


def _operation(summary: str, answers: Mapping[str, Schema]) -> Schema:
    refused = {str(status): {"$ref": f"#/components/responses/{status}"} for status, _ in PROBLEMS.values()}
    return {"summary": summary, "responses": {**refused, **answers}}


def _refusal(status: int) -> Schema:
    kinds = {kind: title for kind, (code, title) in PROBLEMS.items() if code == status}
    content: Schema = {MEDIA_TYPE: {"schema": {"$ref": REFERENCE.format(name="Problem")}}}
    if status == 400:
        content["text/plain; charset=utf-8"] = {"schema": {"type": "string"}}  # what is no HTTP gets no document
    return {"description": "; ".join(f"{kind}: {title}" for kind, title in kinds.items()), "content": content}


def _problem() -> Schema:
    fields: Schema = {
        "type": {"enum": [f"urn:palladion:problem:{kind}" for kind in PROBLEMS]},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
        "field": {"type": "string", "description": "where in the request"},
        "error": {"description": "the same in the words of the protocol that is spoken on the path"},
    }
    return {**_object(fields), "required": ["type", "title", "status"]}


def _security(policy: Policy) -> Schema:
    found: Schema = {
        "bearer": {"type": "http", "scheme": "bearer", "description": "an API key"},
        "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
    }
    if policy.issuer:
        found["bearer"]["description"] = "an API key, or a token (JWT) of an issuer that the policy names"
    if policy.gate.client_ca:
        found["certificate"] = {"type": "mutualTLS"}
    return found


def _page(schema: Schema) -> Schema:
    return {"description": "the answer", "content": {"application/json": {"schema": schema}}}


def _object(fields: Mapping[str, Schema], *, required: bool = False, more: bool = False) -> Schema:
    found: Schema = {"type": "object", "properties": dict(fields), "additionalProperties": more}
    return {**found, "required": list(fields)} if required else found
