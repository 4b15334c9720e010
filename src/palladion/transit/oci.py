"""References to OCI artefacts that hold a sealed file, and their manifests (OCI image spec 1.1). No input or output."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Annotated

import msgspec

from palladion.errors import FormatError
from palladion.transit.ranges import FILE_BYTES_MAX
from palladion.transit.store import SIDECAR_BYTES_MAX, SIDECARS
from palladion.transit.url import Url, is_loopback, parse_url

SEALED_TYPE = "application/vnd.palladion.sealed.v1"
SIDECAR_TYPE = "application/vnd.palladion.sidecar.v1"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
TITLE = "org.opencontainers.image.title"
MANIFEST_BYTES_MAX = 4 * 1024 * 1024  # what the distribution spec asks registries to take
EMPTY_CONFIG = b"{}"  # image spec 1.1, guidance for an empty descriptor

# distribution spec 1.1, "Pulling manifests"
_NAME = re.compile(r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9._-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_NAME_CHARACTERS_MAX = 255


@dataclass(frozen=True)
class Reference:
    """`oci://REGISTRY/NAME:TAG`, `…@sha256:…`, or both: then the digest counts."""

    registry: str
    base: Url
    name: str
    tag: str
    digest: str

    def __str__(self) -> str:
        tag = f":{self.tag}" if self.tag else ""
        return f"oci://{self.registry}/{self.name}{tag}" + (f"@{self.digest}" if self.digest else "")

    @property
    def manifest(self) -> str:
        """What the manifest is asked for by."""
        return self.digest or self.tag


def parse_reference(text: str, *, insecure_http: bool = False) -> Reference:
    """The reference of a text. Raises ValueError. A registry on this machine is spoken to without TLS."""
    registry, _, rest = text.removeprefix("oci://").partition("/")
    rest, _, digest = rest.partition("@")
    name, _, tag = rest.partition(":")
    if len(name) > _NAME_CHARACTERS_MAX or not _NAME.fullmatch(name):
        raise ValueError(f"{text!r} is not oci://REGISTRY/NAME:TAG")
    if not (tag or digest) or (tag and not _TAG.fullmatch(tag)) or (digest and not _DIGEST.fullmatch(digest)):
        # `latest` is nobody's choice: whoever means it can write it
        raise ValueError(f"{text!r} has neither a tag (:v3) nor a digest (@sha256:…), or one that is none")
    secure = parse_url(f"https://{registry}/")
    if is_loopback(secure.host) or insecure_http:
        plain = parse_url(f"http://{registry}/", insecure_http=True)
        return Reference(registry, plain, name, tag, digest)
    return Reference(registry, secure, name, tag, digest)


class Descriptor(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True):
    """What an artefact says of one blob."""

    media_type: str
    digest: Annotated[str, msgspec.Meta(pattern=r"^sha256:[0-9a-f]{64}\Z")]
    size: Annotated[int, msgspec.Meta(ge=0, le=FILE_BYTES_MAX)]
    annotations: dict[str, str] = {}


class _Manifest(msgspec.Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: Annotated[list[Descriptor], msgspec.Meta(max_length=64)]


@dataclass(frozen=True)
class Artefact:
    """The blobs of a sealed file and of what lies beside it, by suffix."""

    sealed: Descriptor
    sidecars: Mapping[str, Descriptor]

    def encode(self) -> bytes:
        """The manifest; the same blobs give the same bytes."""
        manifest = _Manifest(
            schema_version=2,
            media_type=MANIFEST_TYPE,
            artifact_type=SEALED_TYPE,
            config=descriptor("application/vnd.oci.empty.v1+json", EMPTY_CONFIG),
            layers=[self.sealed, *(self.sidecars[suffix] for suffix in sorted(self.sidecars))],
        )
        return msgspec.json.encode(manifest, order="deterministic")


def decode_artefact(data: bytes, *, what: str) -> Artefact:
    """The artefact of a manifest. Raises FormatError unless it holds one sealed file."""
    try:
        manifest = msgspec.json.decode(data, type=_Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise FormatError(f"{what} is no manifest of an artefact: {error}") from None
    if manifest.schema_version != 2 or manifest.media_type not in ("", MANIFEST_TYPE):
        raise FormatError(f"{what} is {manifest.media_type or 'something else'}, a single artefact was expected")
    sealed = [layer for layer in manifest.layers if layer.media_type == SEALED_TYPE]
    if len(sealed) != 1:
        raise FormatError(f"{what} holds {len(sealed)} sealed files, one was expected")
    title = sealed[0].annotations.get(TITLE, "")
    sidecars: dict[str, Descriptor] = {}
    for layer in manifest.layers:
        suffix = layer.annotations.get(TITLE, "").removeprefix(title)
        if layer.media_type == SIDECAR_TYPE and suffix in SIDECARS:
            if layer.size > SIDECAR_BYTES_MAX:
                raise FormatError(
                    f"{what} has a {suffix} of {layer.size} bytes, at most {SIDECAR_BYTES_MAX} are allowed"
                )
            sidecars[suffix] = layer
    return Artefact(sealed[0], sidecars)


def descriptor(media_type: str, data: bytes, *, title: str = "") -> Descriptor:
    """The descriptor of a small blob."""
    return described(media_type, digest_of(data), len(data), title=title)


def described(media_type: str, digest: str, size: int, *, title: str = "") -> Descriptor:
    """The descriptor of a blob that is known by its digest."""
    return Descriptor(media_type, digest, size, {TITLE: title} if title else {})


def digest_of(data: bytes) -> str:
    """The name of a blob."""
    return f"sha256:{sha256(data).hexdigest()}"
