"""Names of end users, as clients' tokens and proxies give them: one spelling for one user, and nothing that hides.

Also the id that an end user has as a client of its own, made of its name by a key and a secret of its reseller: the
name itself is kept nowhere.

Source: Unicode Standard Annex 15 (normal form C); categories C* (control, format, private, unassigned) are refused, and
what Unicode says nobody sees (`access.networks.IGNORABLE`).
"""

import unicodedata
from hashlib import blake2b

from palladion.access.networks import IGNORABLE, caseless

CHARACTERS_MAX = 128  # a subject of OpenID Connect has at most 255 ASCII characters, an address or a UUID 40
BYTES_MAX = 256
ID_BYTES = 8  # as of clients, whose ids are random: without the key nobody can look for a name with another one's id
SECRET_BYTES = 16  # of each reseller
_PERSON = b"pall/end-user"
_BRAILLE_BLANK = "\u2800"  # a symbol by its category, and looks like a blank


def user_name(text: str) -> str:
    """`text` in normal form C. Raises ValueError if it is no name, without repeating it.

    Two spellings of one name would be two users, each with limits of its own; control and format characters, which
    nobody sees, likewise.
    """
    if not text or len(text) > CHARACTERS_MAX:
        raise ValueError(f"a user's name has {len(text)} characters, 1 to {CHARACTERS_MAX} were expected")
    if text.isascii():
        # the usual case, which has only one normal form
        if not text.isprintable() or text != text.strip():
            raise ValueError("a user's name with control characters, or blanks around it")
        return text
    hidden = IGNORABLE.search(text) or _BRAILLE_BLANK in text
    if hidden or any(unicodedata.category(character)[0] == "C" for character in text):
        raise ValueError("a user's name with characters that nobody sees")
    name = unicodedata.normalize("NFC", text)
    if name != name.strip():
        raise ValueError("a user's name with blanks around it")
    if len(name.encode()) > BYTES_MAX:
        raise ValueError(f"a user's name with more than {BYTES_MAX} bytes")
    return name


def end_user_id(key: bytes, secret: bytes, reseller: str, user: str) -> str:
    """The id of an end user of a client (by its id); `key` is the gate root's "pseudonyms", 32 bytes.

    `secret` was drawn for the reseller, `SECRET_BYTES` long: once it is erased, nobody can hold a guess of a name
    against an id any more. However the name is written, as limits know users: else each way of writing it would be
    somebody new.
    """
    if len(key) != 32:
        raise ValueError(f"the key has {len(key)} bytes, expected 32")
    if len(secret) != SECRET_BYTES:
        raise ValueError(f"the secret of a reseller has {len(secret)} bytes, expected {SECRET_BYTES}")
    text = f"{reseller}/{caseless(user)}"
    return blake2b(secret + text.encode(), digest_size=ID_BYTES, key=key, person=_PERSON).hexdigest()
