"""A sealed file as an artefact in an OCI registry, with what lies beside it as further layers."""

from collections.abc import Mapping

from palladion.errors import ConflictError, NotFoundError
from palladion.seal.source import Source
from palladion.seal.structure import Progress
from palladion.transit.connection import Limits
from palladion.transit.oci import (
    EMPTY_CONFIG,
    SEALED_TYPE,
    SIDECAR_TYPE,
    Artefact,
    Reference,
    decode_artefact,
    described,
    descriptor,
    digest_of,
)
from palladion.transit.registry import Registry
from palladion.transit.store import Whole


class OciStore:
    """One artefact, by a reference."""

    def __init__(self, reference: Reference, limits: Limits) -> None:
        self.what = str(reference)
        self._reference = reference
        self._limits = limits
        self._artefact: Artefact | None = None

    @property
    def sha256(self) -> str | None:
        """The digest of the sealed file, by the manifest that `open` has read."""
        return self._artefact.sealed.digest.removeprefix("sha256:") if self._artefact else None

    def open(self) -> Source:
        """The sealed file there, by ranges. A registry that knows none cannot be read from."""
        registry = Registry(self._reference, self._limits)
        try:
            data, _ = registry.manifest()
            self._artefact = decode_artefact(data, what=self.what)
            return registry.blob_source(self._artefact.sealed.digest)
        except BaseException:
            registry.close()
            raise

    def sidecar(self, suffix: str) -> bytes | None:
        """What lies beside it, if the artefact has a layer for it."""
        if self._artefact is None or suffix not in self._artefact.sidecars:
            return None
        layer = self._artefact.sidecars[suffix]
        registry = Registry(self._reference, self._limits)
        try:
            return registry.blob(layer.digest, layer.size)
        finally:
            registry.close()

    def put(
        self,
        whole: Whole,
        sidecars: Mapping[str, bytes],
        *,
        replace: bool,
        progress: Progress | None = None,
    ) -> None:
        """Store the blobs that the registry has not got, then the manifest under the reference's tag."""
        if self._reference.digest or not self._reference.tag:
            raise ConflictError(f"{self.what} names what exists by its digest: a push goes to a tag")
        name = whole.path.name
        layers = {suffix: descriptor(SIDECAR_TYPE, data, title=name + suffix) for suffix, data in sidecars.items()}
        sealed = described(SEALED_TYPE, f"sha256:{whole.digest()}", whole.size, title=name)
        manifest = Artefact(sealed, layers).encode()
        registry = Registry(self._reference, self._limits)
        try:
            self._check_free(registry, manifest, replace=replace)
            registry.put_blob(digest_of(EMPTY_CONFIG), EMPTY_CONFIG)
            for suffix, data in sidecars.items():
                registry.put_blob(layers[suffix].digest, data)
            registry.put_whole(sealed.digest, whole, progress)
            # the protocol has no condition for this: two pushes to one tag at once, and the later one holds
            self._check_free(registry, manifest, replace=replace)
            registry.put_manifest(manifest, tag=self._reference.tag)
        finally:
            registry.close()

    def _check_free(self, registry: Registry, manifest: bytes, *, replace: bool) -> None:
        try:
            _, digest = registry.manifest()
        except NotFoundError:
            return
        if not replace and digest != digest_of(manifest):
            raise ConflictError(
                f"{self.what} exists already, and is another artefact", "name another tag, or use --replace"
            )
