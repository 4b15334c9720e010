"""References and manifests of artefacts: one spelling, one sealed file, and sizes that are capped."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.transit.oci import (
    MANIFEST_TYPE,
    SEALED_TYPE,
    SIDECAR_TYPE,
    Artefact,
    decode_artefact,
    described,
    descriptor,
    digest_of,
    parse_reference,
)

pytestmark = pytest.mark.service  # servers on loopback

DIGEST = f"sha256:{'ab' * 32}"
SEALED = described(SEALED_TYPE, DIGEST, 5_000_000, title="fraud.sealed")
LICENSE = descriptor(SIDECAR_TYPE, b"licence", title="fraud.sealed.license")


@pytest.mark.parametrize(
    ("text", "base", "name", "manifest"),
    [
        ("oci://registry.example/fraud:v3", "https://registry.example", "fraud", "v3"),
        ("oci://registry.example:5000/a/b-c/d__e.f:V3.1_x", "https://registry.example:5000", "a/b-c/d__e.f", "V3.1_x"),
        (f"oci://registry.example/fraud@{DIGEST}", "https://registry.example", "fraud", DIGEST),
        (f"oci://registry.example/fraud:v3@{DIGEST}", "https://registry.example", "fraud", DIGEST),
        ("oci://localhost:5000/fraud:v3", "http://localhost:5000", "fraud", "v3"),
        ("oci://127.0.0.1:5000/fraud:v3", "http://127.0.0.1:5000", "fraud", "v3"),
    ],
)
def test_a_reference_names_registry_repository_and_manifest(text: str, base: str, name: str, manifest: str) -> None:
    reference = parse_reference(text)
    assert (reference.base.base, reference.name, reference.manifest) == (base, name, manifest)
    assert str(reference) == text


@pytest.mark.parametrize(
    "text",
    [
        "oci://registry.example/fraud",
        "oci://registry.example/fraud:",
        "oci://registry.example/Fraud:v3",
        "oci://registry.example/a//b:v3",
        "oci://registry.example/../b:v3",
        "oci://registry.example/:v3",
        "oci://registry.example/fraud:v3/x",
        "oci://registry.example/fraud:.v3",
        f"oci://registry.example/fraud:{'v' * 129}",
        f"oci://registry.example/{'a' * 256}:v3",
        "oci://registry.example/fraud@sha256:abc",
        "oci://registry.example/fraud@md5:abc",
        f"oci://registry.example/fraud@{DIGEST.upper()}",
        "oci://user:pass@registry.example/fraud:v3",
        "oci://registry.example/fraud:v3?x=y",
        "oci:///fraud:v3",
    ],
)
def test_what_is_no_reference_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is not oci://|neither a tag|an address"):
        parse_reference(text)


def test_a_registry_elsewhere_is_spoken_to_without_tls_only_if_asked_for() -> None:
    assert parse_reference("oci://registry.example/fraud:v3").base.secure
    assert not parse_reference("oci://registry.example/fraud:v3", insecure_http=True).base.secure


def test_a_manifest_is_deterministic_and_read_again() -> None:
    artefact = Artefact(SEALED, {".license": LICENSE, ".tsr": descriptor(SIDECAR_TYPE, b"t", title="fraud.sealed.tsr")})
    data = artefact.encode()
    assert data == Artefact(SEALED, dict(reversed(list(artefact.sidecars.items())))).encode()
    assert decode_artefact(data, what="it") == artefact
    document = json.loads(data)
    assert (document["mediaType"], document["artifactType"]) == (MANIFEST_TYPE, SEALED_TYPE)
    assert document["config"]["digest"] == digest_of(b"{}")
    assert document["layers"][0] == {
        "mediaType": SEALED_TYPE,
        "digest": DIGEST,
        "size": 5_000_000,
        "annotations": {"org.opencontainers.image.title": "fraud.sealed"},
    }


def _changed(**changes: Any) -> bytes:
    return json.dumps(json.loads(Artefact(SEALED, {".license": LICENSE}).encode()) | changes).encode()


LAYER = json.loads(_changed())["layers"][0]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        _changed(schemaVersion=1),
        _changed(mediaType="application/vnd.oci.image.index.v1+json"),
        _changed(layers=[]),
        _changed(layers=[LAYER, LAYER]),
        _changed(layers=[LAYER | {"mediaType": "application/octet-stream"}]),
        _changed(layers=[LAYER | {"digest": "sha256:../../x"}]),
        _changed(layers=[LAYER | {"size": -1}]),
        _changed(layers=[LAYER | {"size": 2**60}]),
        _changed(layers=[LAYER | {"size": 1.5}]),
        _changed(layers=[LAYER] + [LAYER | {"mediaType": "x"}] * 64),
        _changed(
            layers=[
                LAYER,
                LAYER
                | {
                    "mediaType": SIDECAR_TYPE,
                    "annotations": {"org.opencontainers.image.title": "fraud.sealed.license"},
                },
            ]
        ),
    ],
)
def test_a_manifest_that_is_no_artefact_of_ours_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_artefact(data, what="it")


def test_layers_of_other_kinds_and_names_are_left_alone() -> None:
    other = LAYER | {"mediaType": SIDECAR_TYPE, "annotations": {"org.opencontainers.image.title": "../../etc/passwd"}}
    assert decode_artefact(_changed(layers=[LAYER, other]), what="it").sidecars == {}


@given(st.binary(max_size=300))
def test_noise_is_no_manifest(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_artefact(data, what="it")
