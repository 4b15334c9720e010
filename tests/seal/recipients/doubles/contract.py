"""What every key service as a recipient has to do; each test module runs it against its own double."""

import base64
import logging
import sys
import time
import traceback
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import pytest

from palladion.errors import FormatError, KeysError, MissingExtraError, PalladionError, StorageError
from palladion.keys import Wrap
from palladion.seal.recipients.envelope import Limits
from palladion.seal.trailer import BLOB_BYTES_MAX, Trailer, decode_trailer
from tests.seal.factories import Parts, Party
from tests.seal.recipients.doubles.loopback import GARBAGE, STALL_SECONDS, Answer, Loopback
from tests.seal.recipients.doubles.service import Double

ONCE = Limits(connect_seconds=5, read_seconds=5, attempts=1, pause_seconds=0)
THRICE = replace(ONCE, attempts=3, pause_seconds=0.25)
SECRET = bytes(range(32))
CONTEXT = b"palladion/v1/file-key of one file"
FRONT_BYTES = 80

D = TypeVar("D", bound=Double)


class Key(Protocol):
    """A recipient and identity in one."""

    @property
    def kind(self) -> str: ...
    @property
    def key_id(self) -> str: ...
    def wrap(self, secret: bytes, context: bytes) -> Wrap: ...
    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None: ...


class ServiceContract(Generic[D]):
    """Tests for one service. Subclasses say how its keys are made, and their module has the fixture `double`."""

    MODULE: ClassVar[str]  # the library, as it is imported
    EXTRA: ClassVar[str]
    TEXTS_REFUSED: ClassVar[list[str]]
    BINDS: ClassVar = True  # whether the service itself refuses another context
    REDIRECTED: ClassVar = False  # whether the library follows redirects, and cannot be told not to
    parse: ClassVar[Any]

    def make(self, double: D, limits: Limits = ONCE) -> Key:
        raise NotImplementedError

    def test_secrets_survive_the_round_trip(self, double: D) -> None:
        key = self.make(double)
        wrap = key.wrap(SECRET, CONTEXT)
        assert (wrap.kind, wrap.key_id) == (key.kind, key.key_id)
        assert key.unwrap(wrap, CONTEXT) == SECRET
        assert Trailer(bytes(64), (wrap,)).encode()  # kind, key id and blob are what a reader accepts
        assert len(wrap.blob) < BLOB_BYTES_MAX

    def test_the_secret_itself_is_never_sent(self, double: D) -> None:
        key = self.make(double)
        assert key.unwrap(key.wrap(SECRET, CONTEXT), CONTEXT) == SECRET
        assert double.plaintexts
        assert all(len(plaintext) == 32 and plaintext != SECRET for plaintext in double.plaintexts)

    def test_two_wraps_share_nothing(self, double: D) -> None:
        key = self.make(double)
        first, second = key.wrap(SECRET, CONTEXT), key.wrap(SECRET, CONTEXT)
        assert first.blob[:32] != second.blob[:32]
        assert first.blob[32:FRONT_BYTES] != second.blob[32:FRONT_BYTES]
        assert first.blob[FRONT_BYTES:] != second.blob[FRONT_BYTES:]

    @pytest.mark.parametrize("size", [0, 31, 33, 64])
    def test_secrets_of_another_length_are_a_callers_mistake(self, double: D, size: int) -> None:
        with pytest.raises(ValueError, match="a secret of"):
            self.make(double).wrap(bytes(size), CONTEXT)

    def test_wraps_for_other_keys_are_not_tried(self, double: D) -> None:
        key = self.make(double)
        wrap = key.wrap(SECRET, CONTEXT)
        double.actions.clear()
        assert key.unwrap(replace(wrap, key_id=wrap.key_id + "x"), CONTEXT) is None
        assert key.unwrap(replace(wrap, kind="x25519"), CONTEXT) is None
        assert double.actions == []

    def test_a_wrap_moved_to_another_file_does_not_open(self, double: D) -> None:
        key = self.make(double)
        wrap = key.wrap(SECRET, CONTEXT)
        double.plaintexts.clear()
        with pytest.raises(KeysError) as refusal:
            key.unwrap(wrap, CONTEXT + b"'s copy")
        assert "moved here from another file" in f"{refusal.value} {refusal.value.hints}"
        assert (double.plaintexts == []) is self.BINDS

    def test_a_moved_wrap_does_not_open_even_if_the_service_ignores_contexts(self, double: D) -> None:
        double.ignores_context = True
        key = self.make(double)
        wrap = key.wrap(SECRET, CONTEXT)
        assert key.unwrap(wrap, CONTEXT) == SECRET
        with pytest.raises(KeysError, match="does not open"):
            key.unwrap(wrap, CONTEXT + b"'s copy")

    def test_changed_blobs_do_not_open(self, double: D) -> None:
        key = self.make(double)
        wrap = key.wrap(SECRET, CONTEXT)
        places = [*range(0, FRONT_BYTES, 9), *range(FRONT_BYTES, len(wrap.blob), len(wrap.blob) // 12)]
        for place in [*places, len(wrap.blob) - 3]:
            blob = bytearray(wrap.blob)
            blob[place] ^= 1 << place % 8
            with pytest.raises((KeysError, FormatError)):
                key.unwrap(replace(wrap, blob=bytes(blob)), CONTEXT)

    @pytest.mark.parametrize("size", [0, 32, FRONT_BYTES, FRONT_BYTES + 6145])
    def test_blobs_of_impossible_sizes_are_refused_before_anybody_is_asked(self, double: D, size: int) -> None:
        key = self.make(double)
        wrap = key.wrap(SECRET, CONTEXT)
        double.actions.clear()
        with pytest.raises(FormatError, match=f"{size} bytes"):
            key.unwrap(replace(wrap, blob=bytes(size)), CONTEXT)
        assert double.actions == []

    @pytest.mark.parametrize("parameters", [{"region": "elsewhere"}, {"version": 1}, {"version": "A" * 32}])
    def test_other_parameters_are_refused_before_anybody_is_asked(
        self, double: D, parameters: dict[str, str | int]
    ) -> None:
        key = self.make(double)
        wrap = key.wrap(SECRET, CONTEXT)
        double.actions.clear()
        with pytest.raises(FormatError, match="parameters"):
            key.unwrap(replace(wrap, parameters=parameters), CONTEXT)
        assert double.actions == []

    def test_a_disabled_key_neither_seals_nor_opens(self, double: D) -> None:
        key = self.make(double)
        wrap = key.wrap(SECRET, CONTEXT)
        double.disable()
        with pytest.raises(KeysError):
            key.unwrap(wrap, CONTEXT)
        with pytest.raises(KeysError):
            key.wrap(SECRET, CONTEXT)

    def test_sealing_and_opening_need_different_permissions(self, double: D) -> None:
        key = self.make(double)
        double.forbidden = {double.DECRYPT}
        wrap = key.wrap(SECRET, CONTEXT)
        with pytest.raises(KeysError, match="refuses to") as refusal:
            key.unwrap(wrap, CONTEXT)
        assert refusal.value.hints
        double.forbidden = {double.ENCRYPT}
        assert key.unwrap(wrap, CONTEXT) == SECRET
        with pytest.raises(KeysError, match="refuses to"):
            key.wrap(SECRET, CONTEXT)

    @pytest.mark.parametrize("fault", GARBAGE)
    def test_an_answer_that_is_none_is_no_answer(self, double: D, fault: str) -> None:
        key = self.make(double)
        wrap = key.wrap(SECRET, CONTEXT)
        for call in (lambda: key.wrap(SECRET, CONTEXT), lambda: key.unwrap(wrap, CONTEXT)):
            double.loopback.faults = [fault]
            with pytest.raises((StorageError, KeysError) if fault in ("list-error", "odd-codes") else StorageError):
                call()

    def test_a_redirect_is_not_followed(self, double: D) -> None:
        # what is sent, and the credentials with it, are for this service alone
        key = self.make(double)
        wrap = key.wrap(SECRET, CONTEXT)
        for call in (lambda: key.wrap(SECRET, CONTEXT), lambda: key.unwrap(wrap, CONTEXT)):
            double.loopback.faults = ["redirect"]
            with pytest.raises((StorageError, KeysError) if self.REDIRECTED else StorageError):
                call()
        assert any(request.path == "/elsewhere" for request in double.loopback.requests) is self.REDIRECTED

    def test_a_service_that_is_busy_for_a_moment_is_asked_again(
        self, double: D, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(time, "sleep", lambda _: None)
        key = self.make(double, THRICE)
        wrap = key.wrap(SECRET, CONTEXT)
        double.loopback.faults = ["busy", "html-error"]
        assert key.unwrap(wrap, CONTEXT) == SECRET

    def test_a_service_that_stays_busy_is_given_up(self, double: D, monkeypatch: pytest.MonkeyPatch) -> None:
        pauses: list[float] = []
        monkeypatch.setattr(time, "sleep", pauses.append)
        key = self.make(double, THRICE)
        wrap = key.wrap(SECRET, CONTEXT)
        double.loopback.faults = ["busy"] * 9
        with pytest.raises(StorageError, match="no usable answer"):
            key.unwrap(wrap, CONTEXT)
        assert len(double.loopback.faults) == 6
        assert pauses == [0.25, 0.5]

    def test_a_service_that_does_not_answer_is_given_up(self, double: D) -> None:
        wrap = self.make(double).wrap(SECRET, CONTEXT)
        key = self.make(double, Limits(connect_seconds=5, read_seconds=0.05, attempts=2, pause_seconds=0))
        double.loopback.faults = ["stalled"] * 9
        began = time.monotonic()
        with pytest.raises(StorageError, match="no usable answer"):
            key.unwrap(wrap, CONTEXT)
        assert time.monotonic() - began < STALL_SECONDS / 2
        assert len(double.loopback.faults) == 7

    def test_a_refusal_is_final(self, double: D) -> None:
        key = self.make(double, THRICE)
        wrap = key.wrap(SECRET, CONTEXT)
        double.forbidden = {double.DECRYPT}
        double.actions.clear()
        with pytest.raises(KeysError):
            key.unwrap(wrap, CONTEXT)
        assert double.actions == [double.DECRYPT]

    @pytest.mark.parametrize("size", [0, 16, 31, 32, 33, 64])
    def test_a_plaintext_of_another_key_opens_nothing(self, double: D, size: int) -> None:
        key = self.make(double)
        wrap = key.wrap(SECRET, CONTEXT)
        double.substitute = bytes(size)
        with pytest.raises((KeysError, StorageError)):
            key.unwrap(wrap, CONTEXT)

    def test_nothing_secret_is_printed_or_logged(self, double: D, caplog: pytest.LogCaptureFixture) -> None:
        key = self.make(double)
        caplog.set_level(logging.DEBUG)
        for name, logger in list(logging.root.manager.loggerDict.items()):
            if isinstance(logger, logging.Logger):
                caplog.set_level(logging.DEBUG, logger=name)
        wrap = key.wrap(SECRET, CONTEXT)
        assert key.unwrap(wrap, CONTEXT) == SECRET
        shown = [repr(key), str(key)]
        for break_it in (self._moved, self._substituted, self._forbidden, self._disabled, self._garbage):
            try:
                break_it(double, key, wrap)
            except PalladionError as error:
                shown.append("".join(traceback.format_exception(error)) + repr(error) + repr(error.hints))
        assert len(shown) == 7
        printed = caplog.text + "\n".join(shown) + "".join(repr(vars(record)) for record in caplog.records)
        for secret in (SECRET, *double.plaintexts, wrap.blob[FRONT_BYTES:]):
            for form in (repr(secret)[2:-1], secret.hex(), base64.b64encode(secret).decode().rstrip("=")):
                assert form not in printed
        assert getattr(double, "TOKEN", "no token") not in printed
        assert "is told why" not in printed

    @staticmethod
    def _moved(_: D, key: Key, wrap: Wrap) -> None:
        key.unwrap(wrap, b"another")

    @staticmethod
    def _substituted(double: D, key: Key, wrap: Wrap) -> None:
        double.substitute = bytes(32)
        key.unwrap(wrap, CONTEXT)

    @staticmethod
    def _forbidden(double: D, key: Key, wrap: Wrap) -> None:
        double.forbidden = {double.DECRYPT}
        key.unwrap(wrap, CONTEXT)

    @staticmethod
    def _disabled(double: D, key: Key, wrap: Wrap) -> None:
        double.forbidden = set()
        double.disable()
        key.unwrap(wrap, CONTEXT)

    @staticmethod
    def _garbage(double: D, key: Key, wrap: Wrap) -> None:
        double.loopback.faults = ["garbage"]
        key.unwrap(wrap, CONTEXT)

    def test_keys_survive_the_text_form(self, double: D) -> None:
        key = self.make(double)
        parsed = type(self).parse(str(key))
        assert (parsed.kind, parsed.key_id, str(parsed)) == (key.kind, key.key_id, str(key))

    def test_texts_that_name_no_key_are_refused(self) -> None:
        for text in ["", "pallr1x", *self.TEXTS_REFUSED]:
            with pytest.raises(FormatError, match="the recipient "):
                type(self).parse(text)

    def test_a_missing_library_is_named_with_its_extra(self, double: D, monkeypatch: pytest.MonkeyPatch) -> None:
        text = str(self.make(double))
        for name in [name for name in sys.modules if name == self.MODULE or name.startswith(f"{self.MODULE}.")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, self.MODULE, None)
        with pytest.raises(MissingExtraError) as refusal:
            type(self).parse(text).wrap(SECRET, CONTEXT)
        assert refusal.value.hints == (f"pip install 'palladion[{self.EXTRA}]'",)

    def test_a_sealed_file_opens_through_the_service_and_only_while_it_allows(self, double: D, tmp_path: Path) -> None:
        party, key = Party(), self.make(double)
        path = party.seal(tmp_path / "model.sealed", recipients=[key, party.identity.recipient])
        assert party.open(path, key) == {"model.bin": b"weights"}
        other = party.seal(tmp_path / "other.sealed", recipients=[key])
        wraps = decode_trailer(Parts.of(other).trailer, what="the other").wraps
        moved = Parts.of(path).with_trailer(lambda trailer: Trailer(trailer.signature, wraps))
        with pytest.raises(KeysError):
            party.open(moved.write(tmp_path / "moved.sealed"), key)
        double.disable()
        with pytest.raises(KeysError):
            party.open(path, key)
        assert party.open(path) == {"model.bin": b"weights"}


class LoopbackContract(ServiceContract[D]):
    """What is asked besides of a service that may run on this machine, and is then spoken to without TLS."""

    def test_a_proxy_does_not_get_what_is_meant_for_this_machine(
        self, double: D, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Loopback(lambda _: Answer(200, {})) as proxy:
            monkeypatch.setenv("HTTP_PROXY", proxy.url)
            monkeypatch.setenv("http_proxy", proxy.url)
            key = self.make(double, replace(ONCE, connect_seconds=4))  # not one that is set up already
            assert key.unwrap(key.wrap(SECRET, CONTEXT), CONTEXT) == SECRET
            assert proxy.requests == []
