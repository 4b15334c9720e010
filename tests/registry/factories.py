"""Versions, tensors and clients for tests, each right unless a test changes one thing."""

from hashlib import sha256
from typing import Any

from palladion.registry import Client, NewVersion, Records, Registry, SealedFile, VersionTensor


def digest(text: str) -> str:
    """The digest of a text: distinct names give distinct digests."""
    return sha256(text.encode()).hexdigest()


def tensor(name: str, content: str = "", **changes: Any) -> VersionTensor:
    """A tensor whose digest follows from its name and `content`."""
    values: dict[str, Any] = {
        "name": name,
        "dtype": "float32",
        "shape": (2, 3),
        "digest": digest(name + content),
        "byte_count": 24,
    }
    return VersionTensor(**{**values, **changes})


def sealed(name: str = "digits/1.sealed") -> SealedFile:
    """A sealed file at a path."""
    return SealedFile(name, digest(name), digest(name + " header"))


def new_version(content: str = "first", *, model: str = "digits", **changes: Any) -> NewVersion:
    """A version to be added; distinct `content` gives distinct digests."""
    values: dict[str, Any] = {
        "model": model,
        "content_digest": digest(content),
        "graph_digest": digest("graph"),
        "format": "onnx",
        "publisher": "ab" * 8,
        "served": sealed(),
        "tensors": (tensor("bias"), tensor("weight", content)),
    }
    return NewVersion(**{**values, **changes})


def add_model(records: Records, name: str = "digits", *contents: str) -> None:
    """A model with one version for each of `contents`."""
    records.models.add(name, owner="Ada Lovelace", model_format="onnx")
    for content in contents:
        records.versions.add(new_version(content, model=name))


def add_client(records: Records, name: str = "scoring", **changes: Any) -> Client:
    """A client of the organisation acme."""
    return records.clients.add(name, **{"organisation": "acme", "actor": "ada", **changes})


def dump(registry: Registry) -> list[str]:
    """The whole content as SQL, to compare before and after."""
    with registry._engine.connect() as connection:
        source: Any = connection.connection.driver_connection
        return list(source.iterdump())
