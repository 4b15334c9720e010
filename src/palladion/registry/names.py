"""What may be called what: slugs, one-line texts, notes and digests, with their limits. Returns its input or raises."""

import difflib
import re
from collections.abc import Iterable, Sequence

from palladion.errors import NotFoundError, PalladionError

SLUG_CHARACTERS_MAX = 64  # a slug becomes a folder name, a URL part and a table column
LABEL_CHARACTERS_MAX = 200  # owners, actors and titles: one line on a screen
NOTE_CHARACTERS_MAX = 2000  # a note is a paragraph; longer texts belong into a file that the note names
PATH_CHARACTERS_MAX = 1024  # a folder of slugs and numbers; the kernel's limit is 4096 bytes
KEY_CHARACTERS_MAX = 2500  # a post-quantum public key in base64 (ML-KEM-1024: 2091); PostgreSQL indexes 2704 bytes
CLOSE_NAMES_MAX = 3

_SLUG = re.compile(r"[a-z0-9][a-z0-9._-]*", re.ASCII)
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


def slug(text: str, *, what: str) -> str:
    """A name that is safe as folder name and URL part. Raises PalladionError, naming `what`, if `text` is not."""
    if len(text) > SLUG_CHARACTERS_MAX:
        raise PalladionError(f"{what} has {len(text)} characters, more than the {SLUG_CHARACTERS_MAX} allowed")
    if not _SLUG.fullmatch(text):
        raise PalladionError(
            f"{what} {text!r} is not allowed: lower-case letters, digits, '-', '_' and '.' were expected, "
            "and a letter or digit first",
            *_suggestion(text),
        )
    return text


def label(text: str, *, what: str) -> str:
    """A non-empty line of text that a terminal prints as it is. Raises PalladionError, naming `what`."""
    if not text.strip():
        raise PalladionError(f"{what} is empty, a text was expected")
    _limited(text, LABEL_CHARACTERS_MAX, what)
    return _printable(text, text, what)


def note(text: str, *, what: str) -> str:
    """A text of several lines, which may be empty. Raises PalladionError, naming `what`."""
    _limited(text, NOTE_CHARACTERS_MAX, what)
    return _printable(text, text.replace("\n", ""), what)


def token(text: str, *, what: str, characters_max: int) -> str:
    """A non-empty text without spaces: a path, a public key, a scope. Raises PalladionError, naming `what`."""
    if not text or " " in text:
        raise PalladionError(f"{what} is empty or has spaces, a text without spaces was expected")
    _limited(text, characters_max, what)
    return _printable(text, text, what)


def digest(text: str, *, what: str) -> str:
    """A SHA-256 digest in lower-case hexadecimal. Raises ValueError: digests are made by code, not by people."""
    if not _DIGEST.fullmatch(text):
        raise ValueError(f"{what} is {text!r}, 64 lower-case hexadecimal digits were expected")
    return text


def one_of(value: str, allowed: Sequence[str], *, what: str) -> str:
    """`value` if it is one of `allowed`. Raises PalladionError, naming `what`."""
    if value not in allowed:
        raise PalladionError(f"{what} is {value!r}, one of {', '.join(allowed)} was expected")
    return value


def not_found(what: str, name: str, known: Iterable[str]) -> NotFoundError:
    """The error for a name that does not exist, with the names that look like it."""
    names = sorted(known)
    if not names:
        return NotFoundError(f"no {what} {name!r}: there is none at all")
    close = difflib.get_close_matches(name, names, n=CLOSE_NAMES_MAX)
    return NotFoundError(f"no {what} {name!r}", *([f"did you mean {' or '.join(close)}?"] if close else []))


def _limited(text: str, characters_max: int, what: str) -> None:
    if len(text) > characters_max:
        raise PalladionError(f"{what} has {len(text)} characters, more than the {characters_max} allowed")


def _printable(text: str, shown: str, what: str) -> str:
    # escape sequences and text-direction marks in a name would forge what an operator sees in a listing
    if not shown.isprintable():
        raise PalladionError(f"{what} {text!r} holds control characters, printable text was expected")
    return text


def _suggestion(text: str) -> list[str]:
    candidate = re.sub(r"[^a-z0-9._-]+", "-", text.lower()).strip("-._")
    return [f"{candidate} would be allowed"] if candidate else []
