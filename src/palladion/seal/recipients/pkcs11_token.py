"""One visit to a token: load its module, log in, find or make a key, and leave nothing open (PKCS#11 v3.1).

Between visits the module is finalised: no session, login, socket or lock of it is left for a program that this process
runs, or for a fork of it. A visit to SoftHSM takes 2.4 ms.
"""

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeAlias

from palladion.errors import ConflictError, KeysError, MissingExtraError, NotFoundError
from palladion.seal.recipients.pkcs11_uri import Pkcs11Uri

if TYPE_CHECKING:
    from pkcs11 import Session, Token

KEY_BYTES = 32
ID_BYTES = 16  # random, so that a key keeps its name when it is cloned or restored to another token
# a key id is made from CKA_ID alone: those of tools that count from 01 would name many keys
ID_BYTES_MIN = 8
GCM = "aes-gcm"
KEY_WRAP = "aes-kw"

# modules are started without locks of their own (C_Initialize without arguments), and stopped after each visit
_visits = Lock()
# tokens that refused a PIN: a token counts wrong ones and locks itself, so none is tried after that
_refused: set[tuple[str, bytes]] = set()

AskPin: TypeAlias = Callable[[str], str]
AesKey: TypeAlias = Any  # a pkcs11.SecretKey; the library's types do not say what one can do


@contextmanager
def visit(uri: Pkcs11Uri, ask_pin: AskPin, *, write: bool = False) -> Iterator["Session"]:
    """A session on the token of `uri`, logged in with what `ask_pin` answers to the token's name.

    Raises NotFoundError if there is no such module or token, KeysError if it refuses the PIN or fails, and
    MissingExtraError without the `hsm` extra.
    """
    pkcs11 = library()
    _check_module(uri.module_path)
    with _visits, _plain_errors(uri):
        try:
            module = pkcs11.lib(str(uri.module_path))
        except pkcs11.PKCS11Error:
            raise NotFoundError(
                f"{uri.module_path} cannot be loaded as a PKCS#11 module",
                "name the vendor's library for this processor with module-path=…",
            ) from None
        try:
            with _logged_in(_find_token(module, uri), uri, ask_pin, write=write) as session:
                yield session
        finally:
            module.finalize()


def library() -> ModuleType:
    """The library that speaks PKCS#11. Raises MissingExtraError if it is not installed."""
    try:
        import pkcs11
    except ImportError:
        raise MissingExtraError("a key in an HSM needs python-pkcs11", "pip install 'palladion[hsm]'") from None
    return pkcs11


def find_key(session: "Session", label: str, key_id: bytes) -> AesKey:
    """The one key of that label and CKA_ID, either of which may be empty, if it is fit to wrap other keys.

    Raises NotFoundError, ConflictError if two fit the name, or KeysError if the key could leave the token.
    """
    found = _matching(session, label, key_id)
    if not found:
        raise NotFoundError(
            f"the token {session.token.label} has no private AES key {label or key_id.hex()}",
            "palladion recipient new --pkcs11 URI makes one",
        )
    if len(found) > 1:
        raise ConflictError(
            f"the token {session.token.label} has {len(found)} keys {label or key_id.hex()}",
            "say which one with id=%XX…, its CKA_ID",
        )
    _check_fitness(found[0])
    return found[0]


def make_key(session: "Session", label: str) -> AesKey:
    """A new AES-256 key that cannot leave the token. Raises ConflictError if one has that label already."""
    pkcs11 = library()
    if _matching(session, label, b""):
        raise ConflictError(f"the token {session.token.label} has a key {label} already", "choose another object=LABEL")
    flags = pkcs11.MechanismFlag
    # one use only: a key that may both wrap and decrypt gives out every extractable key of its token (Clulow 2003)
    uses = flags.ENCRYPT | flags.DECRYPT if _has(session, GCM) else flags.WRAP | flags.UNWRAP
    key: AesKey = session.generate_key(
        pkcs11.KeyType.AES,
        KEY_BYTES * 8,
        id=secrets.token_bytes(ID_BYTES),
        label=label,
        store=True,
        capabilities=uses,
        template={
            pkcs11.Attribute.PRIVATE: True,
            pkcs11.Attribute.SENSITIVE: True,
            pkcs11.Attribute.EXTRACTABLE: False,
            pkcs11.Attribute.MODIFIABLE: False,  # another CKA_ID would cut it off from what it has wrapped
        },
    )
    _check_fitness(key)
    return key


def offers(key: AesKey, mechanism: str) -> bool:
    """Whether the token has the mechanism, and the key may be used with it in both directions."""
    attribute = library().Attribute
    pair = (attribute.ENCRYPT, attribute.DECRYPT) if mechanism == GCM else (attribute.WRAP, attribute.UNWRAP)
    return _has(key.session, mechanism) and all(_attribute(key, name) is True for name in pair)


def _has(session: "Session", mechanism: str) -> bool:
    mechanisms = library().Mechanism
    wanted = mechanisms.AES_GCM if mechanism == GCM else mechanisms.AES_KEY_WRAP
    return wanted in session.token.slot.get_mechanisms()


def _matching(session: "Session", label: str, key_id: bytes) -> list[AesKey]:
    pkcs11 = library()
    attribute = pkcs11.Attribute
    # Private ones only: whoever reaches the token can put a public object there without a PIN, under any name
    template: dict[Any, Any] = {
        attribute.CLASS: pkcs11.ObjectClass.SECRET_KEY,
        attribute.KEY_TYPE: pkcs11.KeyType.AES,
        attribute.PRIVATE: True,
    }
    if label:
        template[attribute.LABEL] = label
    if key_id:
        template[attribute.ID] = key_id
    return list(session.get_objects(template))


def _check_fitness(key: AesKey) -> None:
    attribute = library().Attribute
    name = f"the key {key.label} on the token {key.session.token.label}"
    hint = "palladion recipient new --pkcs11 URI makes a fit one"
    if _attribute(key, attribute.EXTRACTABLE) is not False or _attribute(key, attribute.SENSITIVE) is not True:
        raise KeysError(f"{name} can leave it: CKA_EXTRACTABLE has to be false and CKA_SENSITIVE true", hint)
    if _attribute(key, attribute.VALUE_LEN) != KEY_BYTES:
        raise KeysError(f"{name} is not an AES key of {KEY_BYTES * 8} bits", hint)
    if len(key.id) < ID_BYTES_MIN:
        raise KeysError(
            f"{name} has a CKA_ID of {len(key.id)} bytes, expected {ID_BYTES_MIN} or more that no other key has",
            "give it a random one, for example with pkcs11-tool --set-id",
        )


def _attribute(key: AesKey, name: Any) -> Any:
    """An attribute of a key, or None where the token does not tell: then nothing is taken for granted."""
    try:
        return key[name]
    except library().PKCS11Error:
        return None


def _find_token(module: Any, uri: Pkcs11Uri) -> "Token":
    tokens: list[Token] = [
        token
        for token in module.get_tokens()
        if (not uri.token or token.label == uri.token) and (not uri.serial or token.serial == uri.serial.encode())
    ]
    if not tokens:
        raise _no_token(uri)
    if len(tokens) > 1:
        raise ConflictError(f"{len(tokens)} tokens are called {uri.token}", "say which one with serial=NUMBER")
    return tokens[0]


@contextmanager
def _logged_in(token: "Token", uri: Pkcs11Uri, ask_pin: AskPin, *, write: bool) -> Iterator["Session"]:
    pkcs11 = library()
    place = (str(uri.module_path), token.serial)
    if place in _refused:
        raise KeysError(
            f"the token {token.label} has refused the PIN once, and is not asked again: wrong PINs lock it",
            "correct the PIN, and start this program again",
        )
    _check_tries(token)
    pin = ask_pin(token.label)
    try:
        session = token.open(rw=write, user_pin=pin)
    except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange):
        _refused.add(place)
        raise KeysError(
            f"the token {token.label} refuses the PIN", "correct it before you try again: wrong PINs lock the token"
        ) from None
    except (pkcs11.PinLocked, pkcs11.PinExpired, pkcs11.UserPinNotInitialized) as error:
        raise KeysError(
            f"the token {token.label} takes no PIN: {type(error).__name__}",
            "set a new PIN with the vendor's tool and the security officer's PIN",
        ) from None
    with session:
        yield session


def _check_tries(token: "Token") -> None:
    """Refuse to log in where one more wrong PIN would lock the token, or has: a service that restarts must not."""
    flags = library().TokenFlag
    if token.flags & (flags.USER_PIN_FINAL_TRY | flags.USER_PIN_LOCKED):
        raise KeysError(
            f"the token {token.label} is locked, or one wrong PIN away from it: no PIN is tried",
            "log in once with the vendor's tool and the right PIN, or have the security officer unlock it",
        )


def _check_module(path: Path) -> None:
    """Refuse a library that somebody else could replace: it runs in this process, and is told the PIN."""
    try:
        status = path.stat()
    except OSError:
        raise NotFoundError(f"no PKCS#11 module at {path}", "install the vendor's client software") from None
    if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o022 or status.st_uid not in (0, os.geteuid()):
        raise KeysError(
            f"{path} is not a file that only root or this user can change", "install the module where root keeps it"
        )


def _no_token(uri: Pkcs11Uri) -> NotFoundError:
    return NotFoundError(
        f"no token {uri.token or uri.serial} is present", "connect it, check the module's configuration, or token=NAME"
    )


@contextmanager
def _plain_errors(uri: Pkcs11Uri) -> Iterator[None]:
    pkcs11 = library()
    gone = (pkcs11.NoSuchToken, pkcs11.TokenNotPresent, pkcs11.TokenNotRecognised, pkcs11.DeviceRemoved)
    try:
        yield
    except gone:
        raise _no_token(uri) from None
    except pkcs11.PKCS11Error as error:
        raise KeysError(
            f"the token {uri.token or uri.serial} failed: {type(error).__name__}", "its own log may say why"
        ) from None
