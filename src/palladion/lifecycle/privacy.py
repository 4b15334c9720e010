"""What is stated of the privacy of a version's training: signed with the version's content, read and verified later.

Marks and triggers come after the training. A mark is put in without looking at any row, so that the statement holds of
the marked model too; rows that triggers are planted with, or that a check looks at, are not the statement's.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from palladion import canonical
from palladion.errors import ConflictError, FormatError, MissingExtraError, TamperError
from palladion.keys import Signer
from palladion.lifecycle.doctor import Check
from palladion.lifecycle.installation import Installation
from palladion.private.dp.accounting import EXTRA
from palladion.private.dp.statement import PrivacyStatement, statement_of
from palladion.private.dp.verify import verify_statement
from palladion.registry import SignedPrivacy, Version
from palladion.seal.sign import verify_signature

_DOMAIN = b"palladion/v1/privacy-statement\n"


@dataclass(frozen=True)
class Stated:
    """A statement on a version, and who gave it to Palladion."""

    statement: PrivacyStatement
    by: str


def sign_privacy(statement: PrivacyStatement, *, content: str, by: str, signer: Signer) -> SignedPrivacy:
    """The statement of an operator on the model of that content, signed.

    Raises FormatError where its own figures come to more than it states, ConflictError for noise that came of a seed,
    MissingExtraError where ε cannot be recomputed here: what nobody checked is not signed.
    """
    if statement.noise == "seeded":
        raise ConflictError(
            "the model was trained with noise from a seed: whoever knows the seed can take the noise out again",
            "train it again without a generator, which is for experiments",
        )
    if verify_statement(statement).recomputed is None:
        raise MissingExtraError("recomputing the ε of a sampled training needs dp-accounting", EXTRA)
    document = {"by": by, "content": content, "statement": msgspec.to_builtins(statement)}
    return SignedPrivacy(document, signer.sign(_DOMAIN + canonical.encode(document)).hex())


def verify_privacy(version: Version, publishers: list[bytes]) -> Stated | None:
    """What was stated on a version; None where nothing was. Raises TamperError, FormatError.

    That the publisher signed it says who stated it, and not that the training was so.
    """
    if version.privacy is None:
        return None
    what = f"the privacy statement of {version.model}@{version.number}"
    document = dict(version.privacy.document)
    try:
        signature = bytes.fromhex(version.privacy.signature)
    except ValueError:
        raise FormatError(f"{what} has a signature that is not hexadecimal") from None
    message = _DOMAIN + canonical.encode(document)
    verify_signature(message, signature, publisher=version.publisher, pinned=publishers, what=what)
    if document.get("content") != version.content_digest:
        raise TamperError(f"{what} is of another model", "palladion restore brings back the last backup")
    return Stated(statement_of(document.get("statement"), what=what), str(document.get("by")))


def stated_of(version: Version) -> str | None:
    """What was stated on a version, in short and as a claim; None where nothing was. Raises FormatError."""
    if version.privacy is None:
        return None
    what = f"the privacy statement of {version.model}@{version.number}"
    statement = statement_of(version.privacy.document.get("statement"), what=what)
    by = version.privacy.document.get("by")
    return f"ε = {statement.epsilon} at δ = {statement.delta} for each example, stated by {by} (not proved)"


def check_privacy(installation: Installation) -> Iterator[Check]:
    """Whether statements on served versions are the publisher's, and what noise on answers is worth."""
    name = "privacy"
    with installation.open_registry() as registry, registry.read() as records:
        served = [records.promotions.current(row.name) for row in records.models.all()]
    private = {version.model: version for version in served if version is not None and version.privacy is not None}
    for version in private.values():
        verify_privacy(version, installation.publishers())
        yield Check(name, "ok", f"{version.model}@{version.number}: {stated_of(version)}")
    for route in installation.policy.route:
        policy = route.privacy
        if not policy.is_on:
            continue
        if policy.sensitivity == 1:
            message = f"{route.route} answers with noise that assumes nothing of the model"
            yield Check(name, "ok", message)
        elif route.model not in private:
            message = (
                f"{route.route} answers with noise for a sensitivity of {policy.sensitivity:g}, which nobody proved, "
                f"and {route.model} was not trained privately: with regard to its training rows this is obfuscation"
            )
            hint = "train it privately (docs/privacy.md), or set sensitivity = 1"
            yield Check(name, "warning", message, hint)
