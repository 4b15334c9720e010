"""The messages: read from the file that clients can read too, with the protocol's own names and numbers."""

from typing import Any

import pytest

from palladion.gate.grpc import messages
from palladion.gate.grpc.messages import PROTO, SERVICE, load_messages, missing

pytest.importorskip("google.protobuf", reason="this needs protobuf, a part of the grpc extra")


def _fields(descriptor: Any) -> dict[str, tuple[int, int, bool, str]]:
    return {
        field.name: (
            field.number,
            field.type,
            field.is_repeated,
            field.containing_oneof.name if field.containing_oneof else "",
        )
        for field in descriptor.fields
    }


def _compare(ours: Any, theirs: Any) -> int:
    """Raises AssertionError unless every field of ours is one of theirs; how many there are, nested ones included."""
    assert ours.full_name == theirs.full_name
    assert _fields(ours).items() <= _fields(theirs).items()
    nested = {message.name: message for message in theirs.nested_types}
    return len(ours.fields) + sum(_compare(message, nested[message.name]) for message in ours.nested_types)


def test_names_numbers_and_types_are_those_of_tritons_client() -> None:
    service = pytest.importorskip("tritonclient.grpc.service_pb2", reason="this needs tritonclient[grpc]")
    ours = load_messages()
    compared = sum(
        _compare(message.DESCRIPTOR, getattr(service, name).DESCRIPTOR) for name, message in ours.classes.items()
    )
    assert compared > 50


def test_every_rpc_takes_and_gives_a_message_that_is_there() -> None:
    ours = load_messages()
    assert set(ours.rpcs) == {
        "ServerLive",
        "ServerReady",
        "ModelReady",
        "ServerMetadata",
        "ModelMetadata",
        "ModelInfer",
    }
    for name, (taken, given) in ours.rpcs.items():
        assert (taken, given) == (f"{name}Request", f"{name}Response")
        assert ours[taken]().SerializeToString() == ours[given]().SerializeToString() == b""
    assert SERVICE == "inference.GRPCInferenceService"


def test_what_one_copy_of_the_messages_writes_another_reads() -> None:
    service = pytest.importorskip("tritonclient.grpc.service_pb2", reason="this needs tritonclient[grpc]")
    request = load_messages()["ModelInferRequest"](model_name="m", raw_input_contents=[b"a"])
    request.parameters["p"].int64_param = -1
    request.inputs.add(name="x", shape=[1, -1]).contents.fp32_contents.append(0.5)
    theirs = service.ModelInferRequest.FromString(request.SerializeToString())
    assert theirs.parameters["p"].int64_param == -1
    assert list(theirs.inputs[0].shape) == [1, -1]
    assert list(theirs.inputs[0].contents.fp32_contents) == [0.5]


@pytest.mark.parametrize(
    "text",
    [
        "",
        'syntax = "proto2";',
        'syntax = "proto3"; package other;',
        "HEAD enum Kind {}",
        "HEAD message A { string a = one; }",
        "HEAD message A { string a = 1 }",
        "HEAD message A {",
        "HEAD message A { string a = 1 [deprecated]; }",
        "HEAD message A { map<int32, string> a = 1; }",
    ],
)
def test_a_file_that_is_written_otherwise_is_not_guessed_at(text: str) -> None:
    from google.protobuf import descriptor_pb2

    head = 'syntax = "proto3"; package inference;'
    with pytest.raises(ValueError):
        messages._Reader(text.replace("HEAD", head), descriptor_pb2.FileDescriptorProto()).read()


def test_the_file_is_part_of_the_package() -> None:
    assert PROTO.parent.name == "grpc"
    assert PROTO.read_text().startswith("//")


def test_without_the_extra_the_install_line_is_told() -> None:
    error = missing()
    assert error.message == "gate.grpc_listen is set, and gRPC is not installed"
    assert error.hints == ("pip install 'palladion[grpc]'",)
