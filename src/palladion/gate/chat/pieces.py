"""What requests to language models are made of: messages, tools and formats, each with its limits. JSON → typed.

Field by field as the API of OpenAI has it. Left out on purpose: addresses of pictures and files, which the model server
would fetch from wherever a client points it to, and everything that the API says is replaced.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from msgspec import Meta

from palladion.gate.chat.values import values_of
from palladion.gate.problems import Problem

MESSAGES_MAX = 4096
PARTS_MAX = 256  # of one message
TOOLS_MAX = 128  # OpenAI's own limit
STOPS_MAX = 16
METADATA_MAX = 16  # OpenAI's own limit
WORDS_CHARACTERS_MAX = 200  # of what a problem repeats
# Of the JSON that a client writes freely: schemas of tools and answers. Engines compile them, some recursively.
DEPTH_MAX = 16
VALUES_MAX = 10_000
_INTEGER_MAX = 2**63 - 1

Name = Annotated[str, Meta(min_length=1, max_length=200)]
Identifier = Annotated[str, Meta(max_length=200)]
FunctionName = Annotated[str, Meta(pattern=r"^[a-zA-Z0-9_.-]{1,128}$")]
_INLINE = r"^data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=]+$"
InlinePicture = Annotated[str, Meta(pattern=_INLINE, description="inline only")]
PICTURES = "pictures come within the request: data:image/png;base64,… (or jpeg, gif, webp)"
_NO_PICTURE = f"Expected `str` matching regex {_INLINE!r}"  # as msgspec says it
_Asked = TypeVar("_Asked")


class Piece(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """Base of everything that a client sends: unknown fields are refused, and what is at its default is not sent on."""


class TextPart(Piece, tag_field="type", tag="text", kw_only=True):
    """Some text of a message."""

    text: str


class RefusalPart(Piece, tag_field="type", tag="refusal", kw_only=True):
    """What the model did not want to say, in a message of its own."""

    refusal: str


class Picture(Piece, kw_only=True):
    """A picture within the request."""

    url: InlinePicture
    detail: Literal["auto", "low", "high"] | None = None


class PicturePart(Piece, tag_field="type", tag="image_url", kw_only=True):
    """A picture of a message."""

    image_url: Picture


class Sound(Piece, kw_only=True):
    """A sound within the request."""

    data: Annotated[str, Meta(pattern=r"^[A-Za-z0-9+/=]+$")]
    format: Literal["wav", "mp3"]


class SoundPart(Piece, tag_field="type", tag="input_audio", kw_only=True):
    """A sound of a message."""

    input_audio: Sound


Part = TextPart | RefusalPart | PicturePart | SoundPart


class Call(Piece, kw_only=True):
    """A call of a function: its arguments are JSON within a text, as the model wrote it."""

    name: FunctionName
    arguments: str


class ToolCall(Piece, tag_field="type", tag="function", kw_only=True):
    """A call of a tool that the model made before."""

    id: Identifier
    function: Call


class Message(Piece, kw_only=True):
    """A message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | Annotated[list[Part], Meta(max_length=PARTS_MAX)] | None = None
    name: Identifier | None = None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: Annotated[list[ToolCall], Meta(max_length=TOOLS_MAX)] | None = None
    tool_call_id: Identifier | None = None


def text_of(message: Message) -> str:
    """The text of a message, without pictures and sounds."""
    content = message.content or ""
    if isinstance(content, str):
        return content
    return "\n".join(part.text for part in content if isinstance(part, TextPart))


class Function(Piece, kw_only=True):
    """A function that the model may call; its parameters are a JSON schema."""

    name: FunctionName
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class Tool(Piece, tag_field="type", tag="function", kw_only=True):
    """A tool."""

    function: Function


class Named(Piece, kw_only=True):
    """The name of a function."""

    name: FunctionName


class ToolChoice(Piece, tag_field="type", tag="function", kw_only=True):
    """The tool that has to be called."""

    function: Named


class PlainFormat(Piece, tag_field="type", tag="text", kw_only=True):
    """An answer in words."""


class ObjectFormat(Piece, tag_field="type", tag="json_object", kw_only=True):
    """An answer in JSON."""


class Schema(Piece, kw_only=True):
    """A schema with a name."""

    name: FunctionName
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class SchemaFormat(Piece, tag_field="type", tag="json_schema", kw_only=True):
    """An answer in JSON of a schema."""

    json_schema: Schema


Format = PlainFormat | ObjectFormat | SchemaFormat


class StreamOptions(Piece, kw_only=True):
    """What a stream holds besides the answer."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


Stop = (
    Annotated[str, Meta(max_length=256)]
    | Annotated[list[Annotated[str, Meta(min_length=1, max_length=256)]], Meta(max_length=STOPS_MAX)]
)
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]], Meta(max_length=METADATA_MAX)
]


def decode(decoder: "msgspec.json.Decoder[_Asked]", body: bytes) -> _Asked:
    """What a body says. Raises Problem that names the field at fault."""
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as error:
        raise _located(str(error), decoder.type) from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Problem("bad-request", f"the body is not JSON: {error}") from None


def bounded(value: object, field: str) -> None:
    """Raise Problem unless free JSON is small and flat enough for whoever reads it next."""
    waiting: list[tuple[object, int]] = [(value, 1)]
    seen = 0
    while waiting:
        item, depth = waiting.pop()
        seen += 1
        if isinstance(item, int) and not -_INTEGER_MAX <= item <= _INTEGER_MAX:
            raise Problem("bad-input", "a number does not fit 64 bits", field=field)
        if not isinstance(item, list | Mapping):
            continue
        if depth > DEPTH_MAX or seen + len(item) > VALUES_MAX:
            raise Problem(
                "bad-input", f"at most {DEPTH_MAX} levels and {VALUES_MAX} values are taken here", field=field
            )
        waiting += [(child, depth + 1) for child in (item.values() if isinstance(item, Mapping) else item)]


def _located(message: str, kind: type) -> Problem:
    reason, _, path = message.partition(" - at `$")
    path = path.rstrip("`")
    values = values_of(kind, path) if reason.startswith("Invalid ") else ()
    field = path.lstrip(".")
    if named := re.search(r" field `(.*)`", reason, re.DOTALL):
        field = f"{field}.{named[1]}".lstrip(".")
    if reason.startswith(_NO_PICTURE):
        reason = PICTURES
    # a pattern says less than a sentence: what it stands for is in docs/chat.md
    reason = re.sub(r" matching regex .*", " of the form that docs/chat.md says", reason.replace("`", ""))
    reason = f"{reason[0].lower()}{reason[1:WORDS_CHARACTERS_MAX]}"
    if values:
        # ours, so they are never cut
        reason += f": expected {' or '.join(values)}"
    return Problem("bad-input", reason, field=field[:WORDS_CHARACTERS_MAX])
