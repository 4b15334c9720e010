"""Names of OpenTelemetry's conventions: as its own package has them."""

import pytest

from palladion.gate.chat.kinds import KINDS
from palladion.gate.operations import conventions


def test_every_kind_of_question_to_a_language_model_has_a_name() -> None:
    assert {conventions.operation(f"/team{kind}") for kind in KINDS} == {"chat", "text_completion", "embeddings"}


def test_questions_in_arrays_have_none() -> None:
    assert conventions.operation("/v1/models/fraud/predict") is None


def test_the_names_are_those_of_the_reference_package() -> None:
    attributes = pytest.importorskip(
        "opentelemetry.semconv._incubating.attributes.gen_ai_attributes",
        reason="this needs opentelemetry-semantic-conventions (palladion[otel])",
    )
    metrics = pytest.importorskip("opentelemetry.semconv._incubating.metrics.gen_ai_metrics")
    assert conventions.OPERATION == attributes.GEN_AI_OPERATION_NAME
    assert conventions.PROVIDER == attributes.GEN_AI_PROVIDER_NAME
    assert conventions.RESPONSE_ID == attributes.GEN_AI_RESPONSE_ID
    assert conventions.REQUEST_DURATION == metrics.GEN_AI_SERVER_REQUEST_DURATION
    named = {item.value for item in attributes.GenAiOperationNameValues}
    assert set(conventions.OPERATIONS.values()) <= named
