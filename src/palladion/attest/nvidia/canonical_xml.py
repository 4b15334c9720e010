"""XML as far as NVIDIA's reference values use it: read strictly, and written in Canonical XML 1.1 to be digested.

Elements, attributes and text. What a signature could be smuggled past is refused instead of handled: document types and
so entities, processing instructions, comments, CDATA, attributes of xml:, namespaces that are taken back.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, Never
from xml.parsers import expat

from palladion.errors import FormatError

BYTES_MAX: Final = 128 * 1024  # a driver's reference values have 21 KiB
DEPTH_MAX: Final = 8  # a certificate in a signature stands 5 deep
ELEMENTS_MAX: Final = 512  # 64 measurements and a signature have 85
ATTRIBUTES_MAX: Final = 64  # a measurement with all its alternatives has fewer


@dataclass
class Element:
    """An element as it stands in the text: prefixed name, attributes, children, and the namespaces in scope."""

    name: str
    attributes: Mapping[str, str]
    scope: Mapping[str, str]
    children: "list[Element | str]" = field(default_factory=list)

    @property
    def tag(self) -> tuple[str, str]:
        """Namespace and local name."""
        return _resolve(self.name, self.scope, default=True)

    @property
    def text(self) -> str:
        """The text in it, if nothing else is."""
        return "".join(child for child in self.children if isinstance(child, str))

    def elements(self) -> "list[Element]":
        """The elements in it."""
        return [child for child in self.children if isinstance(child, Element)]

    def resolved(self) -> dict[tuple[str, str], str]:
        """The attributes by namespace (empty without a prefix) and local name."""
        found = {_resolve(name, self.scope, default=False): value for name, value in _plain(self)}
        if len(found) != sum(1 for _ in _plain(self)):
            _refuse("an attribute twice")
        return found


def parse(data: bytes, *, what: str) -> Element:
    """The outermost element of a document in UTF-8. Raises FormatError, naming `what`."""
    if len(data) > BYTES_MAX:
        raise FormatError(f"{what} has {len(data)} bytes, at most {BYTES_MAX} are read")
    builder = _Builder()
    parser = expat.ParserCreate("UTF-8")
    parser.ordered_attributes = True
    parser.buffer_text = True
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.characters
    for name in ("StartDoctypeDecl", "ProcessingInstruction", "Comment", "StartCdataSection", "XmlDecl"):
        setattr(parser, f"{name}Handler", builder.forbidden)
    try:
        parser.Parse(data, True)
        if builder.root is None:
            _refuse("no element")
    except (expat.ExpatError, FormatError, UnicodeError) as error:
        raise FormatError(f"{what} is not the XML that is read here: {error}") from None
    return builder.root


def canonical(element: Element, *, without: Element | None = None) -> bytes:
    """`element` in Canonical XML 1.1, as a document of its own or as a part of one; `without` is left out."""
    return "".join(_written(element, {}, without)).encode()


class _Builder:
    def __init__(self) -> None:
        self.root: Element | None = None
        self.open: list[Element] = []
        self.count = 0

    def start(self, name: str, pairs: list[str]) -> None:
        self.count += 1
        if self.count > ELEMENTS_MAX or len(self.open) == DEPTH_MAX or len(pairs) > 2 * ATTRIBUTES_MAX:
            _refuse("more elements, depth or attributes than it can have")
        attributes = dict(zip(pairs[::2], pairs[1::2], strict=True))
        declared = {}
        for key, value in attributes.items():
            if key.startswith("xml:") or (key.split(":")[0] == "xmlns" and not value):
                _refuse("an attribute that is not read here")
            if key == "xmlns" or key.startswith("xmlns:"):
                declared[key[6:]] = value
        scope = {**(self.open[-1].scope if self.open else {}), **declared}
        element = Element(name, attributes, scope)
        if self.open:
            self.open[-1].children.append(element)
        else:
            self.root = element
        self.open.append(element)

    def end(self, _name: str) -> None:
        self.open.pop()

    def characters(self, text: str) -> None:
        if self.open:
            self.open[-1].children.append(text)

    def forbidden(self, *_arguments: object) -> None:
        _refuse("a declaration, comment or instruction")


def _written(element: Element, rendered: Mapping[str, str], without: Element | None) -> Iterator[str]:
    """C14N §2.3: namespaces that are not in force yet by prefix, attributes by namespace and name."""
    yield f"<{element.name}"
    fresh = {prefix: uri for prefix, uri in element.scope.items() if rendered.get(prefix) != uri}
    for prefix in sorted(fresh):
        yield f' xmlns{":" if prefix else ""}{prefix}="{_escaped_value(fresh[prefix])}"'
    for name, value in sorted(_plain(element), key=lambda pair: _resolve(pair[0], element.scope, default=False)):
        yield f' {name}="{_escaped_value(value)}"'
    yield ">"
    for child in element.children:
        if isinstance(child, str):
            yield _escaped(child).replace(">", "&gt;")
        elif child is not without:
            yield from _written(child, {**rendered, **fresh}, without)
    yield f"</{element.name}>"


def _plain(element: Element) -> Iterator[tuple[str, str]]:
    for name, value in element.attributes.items():
        if name != "xmlns" and not name.startswith("xmlns:"):
            yield name, value


def _resolve(name: str, scope: Mapping[str, str], *, default: bool) -> tuple[str, str]:
    prefix, separator, local = name.rpartition(":")
    if not separator:
        return (scope.get("", "") if default else ""), name
    if prefix not in scope:
        _refuse("a prefix that stands for nothing")
    return scope[prefix], local


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace("\r", "&#xD;")


def _escaped_value(text: str) -> str:
    return _escaped(text).replace('"', "&quot;").replace("\t", "&#x9;").replace("\n", "&#xA;")


def _refuse(problem: str) -> Never:
    raise FormatError(f"it has {problem}")
