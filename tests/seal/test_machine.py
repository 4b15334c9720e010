"""What a machine shows of itself, from a file system that the test makes; what it remembers; and what it asks for."""

import base64
import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError, PalladionError, StorageError
from palladion.keys import Identity
from palladion.seal.machine import (
    CLOCK_TOLERANCE,
    FACT_BYTES_MAX,
    PENDING_MAX,
    SEEN_FILE,
    TOKEN_BYTES_MAX,
    Accepted,
    LicensesSeen,
    Machine,
    MachineKind,
    decode_challenge,
    decode_licenses_seen,
    machine_digest,
    read_licenses_seen,
    read_machine,
    request,
    update_licenses_seen,
)
from palladion.seal.recipients import FileIdentity, HybridIdentity, PassphraseIdentity, TpmIdentity
from palladion.seal.recipients.tpm import generate_key
from tests.seal.recipients.tpm_vectors import KEY
from tests.seal.recipients.tpms import needs_swtpm, running

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
MACHINE_ID = "3d1219c7c4c5404aaa1f6d2a48adfda4"
UUID = "4c4c4544-0042-4b10-8056-b4c04f503433"
ACCOUNT = "0f9e8d7c-6b5a-4938-8271-605f4e3d2c1b"
IDENTITY = FileIdentity(b"\x07" * 32)
HOST = str(IDENTITY.recipient)
TOKEN = "var/run/secrets/kubernetes.io/serviceaccount/token"


def place(root: Path, name: str, text: str) -> None:
    """The file `name` below a made-up root."""
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def token(**claims: Any) -> str:
    """A service account's token with these claims and no signature worth the name."""
    parts = [b'{"alg":"RS256"}', json.dumps(claims).encode(), b"signature"]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def pod_token(namespace: str = "scoring", uid: str = ACCOUNT, **more: Any) -> str:
    """A projected token as the kubelet writes it."""
    bound = {"namespace": namespace, "pod": {"name": "x", "uid": UUID}, "serviceaccount": {"name": "y", "uid": uid}}
    return token(**{"exp": int(NOW.timestamp()) + 3000, "kubernetes.io": bound, **more})


def read(root: Path, *identities: Identity) -> Machine:
    return read_machine(root, identities, now=NOW)


def test_every_kind_is_read_and_shown_as_a_digest_under_its_own_domain(tmp_path: Path) -> None:
    place(tmp_path, "etc/machine-id", f"{MACHINE_ID}\n")
    place(tmp_path, "sys/class/dmi/id/product_uuid", f"{UUID}\n")
    place(tmp_path, TOKEN, pod_token())
    machine = read(tmp_path, IDENTITY)
    assert machine.shown == {
        "host": (machine_digest("host", HOST),),
        "machine-id": (machine_digest("machine-id", MACHINE_ID),),
        "vm": (machine_digest("vm", UUID),),
        "pod": (machine_digest("pod", f"scoring/{ACCOUNT}"),),
    }
    assert set(machine.missing) == {"tpm"}
    assert machine_digest("vm", UUID) != machine_digest("machine-id", UUID)


def test_no_raw_identifier_is_in_a_request(tmp_path: Path) -> None:
    place(tmp_path, "etc/machine-id", MACHINE_ID)
    place(tmp_path, "sys/class/dmi/id/product_uuid", UUID)
    place(tmp_path, TOKEN, pod_token())
    challenge, _ = request(read(tmp_path, IDENTITY), LicensesSeen(), now=NOW)
    text = challenge.encode().decode()
    assert not any(raw in text for raw in (MACHINE_ID, UUID, ACCOUNT, "scoring", HOST))


def test_an_empty_machine_says_of_each_kind_why_it_has_none(tmp_path: Path) -> None:
    machine = read(tmp_path)
    assert machine.shown == {}
    assert set(machine.missing) == {"host", "machine-id", "vm", "pod", "tpm"}
    assert "no identity" in machine.missing["host"]
    assert "no such file" in machine.missing["machine-id"]


@pytest.mark.parametrize(
    "text",
    ["", "\n", "uninitialized\n", "0" * 32, MACHINE_ID[:-1], MACHINE_ID + "0", "x" * 32, "\xff" * 32],
    ids=["empty", "blank", "uninitialized", "zeros", "short", "long", "not-hex", "not-ascii"],
)
def test_a_machine_id_that_is_none_is_not_shown(tmp_path: Path, text: str) -> None:
    place(tmp_path, "etc/machine-id", text)
    machine = read(tmp_path)
    assert "machine-id" not in machine.shown
    assert "holds no id" in machine.missing["machine-id"]


def test_upper_case_and_blanks_do_not_make_another_machine(tmp_path: Path) -> None:
    for root, text in ((tmp_path / "a", f"{UUID}\n"), (tmp_path / "b", f" {UUID.upper()} ")):
        place(root, "sys/class/dmi/id/product_uuid", text)
    assert read(tmp_path / "a").shown == read(tmp_path / "b").shown


@pytest.mark.parametrize(
    "text",
    [
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "03000200-0400-0500-0006-000700080009",
        "Not Settable",
    ],
)
def test_a_board_that_was_never_given_a_number_is_no_identity(tmp_path: Path, text: str) -> None:
    place(tmp_path, "sys/class/dmi/id/product_uuid", text)
    assert "vm" not in read(tmp_path).shown


def test_what_any_account_may_read_comes_before_what_root_alone_may(tmp_path: Path) -> None:
    place(tmp_path, "sys/class/dmi/id/product_uuid", UUID)
    place(tmp_path, "sys/class/dmi/id/board_asset_tag", "i-0123456789abcdef0\n")
    shown = read(tmp_path).shown["vm"]
    assert shown == (machine_digest("vm", "i-0123456789abcdef0"), machine_digest("vm", UUID))


def test_an_asset_tag_that_somebody_stuck_on_is_no_instance(tmp_path: Path) -> None:
    place(tmp_path, "sys/class/dmi/id/board_asset_tag", "Inventory 4711")
    assert "vm" not in read(tmp_path).shown


def test_a_file_that_is_too_large_or_none_is_not_read(tmp_path: Path) -> None:
    place(tmp_path, "etc/machine-id", MACHINE_ID + " " * FACT_BYTES_MAX)
    (tmp_path / "sys/class/dmi/id/product_uuid").mkdir(parents=True)
    place(tmp_path, TOKEN, pod_token(padding="x" * TOKEN_BYTES_MAX))
    assert read(tmp_path).shown == {}


def test_a_pod_is_its_namespace_and_account_and_not_its_name(tmp_path: Path) -> None:
    roots = [tmp_path / str(number) for number in range(4)]
    place(roots[0], TOKEN, pod_token())
    place(roots[1], TOKEN, pod_token(jti="another-pod"))
    place(roots[2], TOKEN, pod_token(namespace="other"))
    place(roots[3], TOKEN, pod_token(uid=UUID))
    digests = [read(root).shown["pod"] for root in roots]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


def test_a_token_of_before_projected_ones_names_the_same_account(tmp_path: Path) -> None:
    old = token(
        **{
            "kubernetes.io/serviceaccount/namespace": "scoring",
            "kubernetes.io/serviceaccount/service-account.uid": ACCOUNT,
        }
    )
    place(tmp_path / "old", TOKEN, old)
    place(tmp_path / "new", TOKEN, pod_token())
    assert read(tmp_path / "old").shown == read(tmp_path / "new").shown


def test_a_token_that_has_run_out_was_copied_and_counts_for_nothing(tmp_path: Path) -> None:
    place(tmp_path, TOKEN, pod_token(exp=int(NOW.timestamp()) - 1))
    assert "run out" in read(tmp_path).missing["pod"]


@pytest.mark.parametrize("name", ["etc/podinfo/namespace", "var/run/secrets/kubernetes.io/serviceaccount/namespace"])
def test_a_token_of_another_namespace_than_the_pods_files_say_is_refused(tmp_path: Path, name: str) -> None:
    place(tmp_path, TOKEN, pod_token())
    place(tmp_path, name, "scoring")
    assert "pod" in read(tmp_path).shown
    place(tmp_path, name, "other")
    assert "of namespace 'scoring'" in read(tmp_path).missing["pod"]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a.b",
        "a.!!!.c",
        f"a.{base64.urlsafe_b64encode(b'[1]').decode()}.c",
        token(),
        token(**{"kubernetes.io": 1}),
        pod_token(uid="default"),
    ],
    ids=[
        "empty",
        "no-parts",
        "not-base64",
        "not-base64-at-all",
        "a-list",
        "no-claims",
        "claims-of-another-shape",
        "no-uid",
    ],
)
def test_a_token_that_is_none_is_no_pod(tmp_path: Path, text: str) -> None:
    place(tmp_path, TOKEN, text)
    assert "pod" not in read(tmp_path).shown


@given(st.binary(max_size=300))
def test_no_bytes_in_a_token_are_a_crash(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    root = tmp_path_factory.mktemp("root")
    (root / TOKEN).parent.mkdir(parents=True)
    (root / TOKEN).write_bytes(b"a." + base64.urlsafe_b64encode(data) + b".c")
    assert "pod" not in read(root).shown


def test_an_entry_is_matched_in_every_kind_it_names(tmp_path: Path) -> None:
    place(tmp_path, "etc/machine-id", MACHINE_ID)
    machine = read(tmp_path, IDENTITY)
    entry = machine.pick(["host", "machine-id"])
    assert machine.mismatch(entry) is None
    assert "its machine-id is" in str(machine.mismatch({**entry, "machine-id": machine_digest("machine-id", "0")}))
    assert "its vm cannot be read" in str(machine.mismatch({**entry, "vm": machine_digest("vm", UUID)}))
    assert "no identity of a TPM" in str(machine.mismatch({"tpm": machine_digest("tpm", "x")}))


def test_any_of_several_identities_is_the_host(tmp_path: Path) -> None:
    identities: list[Identity] = [FileIdentity.generate(), HybridIdentity.generate(), IDENTITY]
    machine = read(tmp_path, *identities)
    assert len(machine.shown["host"]) == 3
    assert machine.mismatch({"host": machine_digest("host", HOST)}) is None


def test_a_tpms_key_is_a_host_and_a_tpm_only_where_the_tpm_answers(tmp_path: Path) -> None:
    """The file that names it is no secret: a copy shows nothing."""
    elsewhere = TpmIdentity(replace(KEY, tcti="swtpm:path=/missing"))
    machine = read(tmp_path, elsewhere)
    assert machine.shown == {}
    assert machine.missing["tpm"] == machine.missing["host"]
    assert machine.mismatch({"host": machine_digest("host", str(elsewhere.recipient))})
    assert read(tmp_path, elsewhere, IDENTITY).shown == {"host": (machine_digest("host", HOST),)}


@needs_swtpm
def test_a_licence_of_a_tpm_fits_the_machine_whose_tpm_holds_the_key(tmp_path: Path) -> None:
    with running(tmp_path / "chip") as tpm, running(tmp_path / "other") as other:
        identity = generate_key(f"tpm:?tcti={tpm.tcti}")
        assert read(tmp_path, identity).shown["host"] == (machine_digest("host", str(identity.recipient)),)
        entry = read(tmp_path, identity).pick(["tpm"])
        assert entry == {"tpm": machine_digest("tpm", str(identity.recipient))}
        assert read(tmp_path, IDENTITY, identity).mismatch(entry) is None
        # the same files, in another machine
        copied = TpmIdentity(replace(identity.uri, tcti=other.tcti))
        assert "made in another one" in str(read(tmp_path, copied).mismatch(entry))
        theirs = read(tmp_path, generate_key(f"tpm:?tcti={other.tcti}"))
        assert "its tpm is" in str(theirs.mismatch(entry))


def test_a_passphrase_is_no_machine(tmp_path: Path) -> None:
    assert "no identity in a file" in read(tmp_path, PassphraseIdentity("correct horse")).missing["host"]


def test_a_licence_is_not_bound_to_what_the_machine_does_not_show(tmp_path: Path) -> None:
    kinds: list[MachineKind] = ["vm", "tpm"]
    for kind in kinds:
        with pytest.raises(PalladionError, match=f"shows no {kind}"):
            read(tmp_path, IDENTITY).pick([kind])


def challenge_bytes() -> bytes:
    machine = Machine({"host": (machine_digest("host", HOST),)})
    return request(machine, LicensesSeen(), now=NOW, recipient=HOST, serial="ab" * 16, sequence=3)[0].encode()


def test_a_request_survives_its_file() -> None:
    challenge = decode_challenge(challenge_bytes(), what="it")
    assert (challenge.serial, challenge.sequence, challenge.recipient) == ("ab" * 16, 3, HOST)
    assert challenge.shows.shown == {"host": (machine_digest("host", HOST),)}
    assert decode_challenge(challenge.encode(), what="it") == challenge


def test_no_two_requests_are_the_same_and_codes_tell_them_apart() -> None:
    first, second = (decode_challenge(challenge_bytes(), what="it") for _ in range(2))
    assert first.nonce != second.nonce
    assert first.code != second.code
    assert len(first.code) == 19


@given(st.data())
def test_one_flipped_bit_in_a_request_is_found(data: st.DataObject) -> None:
    whole = challenge_bytes()
    bit = data.draw(st.integers(0, len(whole) * 8 - 1))
    broken = bytearray(whole)
    broken[bit // 8] ^= 1 << bit % 8
    with pytest.raises(FormatError):
        decode_challenge(bytes(broken), what="it")


@pytest.mark.parametrize(
    "cut", [lambda d: d[:-1], lambda d: d + b"\n", lambda d: b"", lambda d: b"[]\n", lambda d: b"{}\n"]
)
def test_what_is_no_request_is_refused(cut: Callable[[bytes], bytes]) -> None:
    with pytest.raises(FormatError):
        decode_challenge(cut(challenge_bytes()), what="it")


def test_what_was_seen_survives_its_file() -> None:
    seen = LicensesSeen(NOW, {"ab" * 16: Accepted(3, "cd" * 32)}, {"0123456789abcdef": 7}, ("ef" * 16,), "ef" * 16)
    assert decode_licenses_seen(seen.encode(), what="it") == seen
    assert decode_licenses_seen(LicensesSeen().encode(), what="it") == LicensesSeen()


@pytest.mark.parametrize(
    "data", [b"", b"{}", b"null", LicensesSeen().encode()[:-1], LicensesSeen().encode().replace(b'"v":1', b'"v":2')]
)
def test_a_broken_memory_is_an_error_and_not_an_empty_one(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode_licenses_seen(data, what="it")


def test_a_memory_that_could_not_be_read_back_is_not_written() -> None:
    with pytest.raises(ValueError, match="cannot be remembered"):
        LicensesSeen(licenses={"ab" * 16: Accepted(0, "cd" * 32)}).encode()


def test_the_oldest_request_is_given_up_for_a_new_one() -> None:
    seen = LicensesSeen()
    nonces = []
    for _ in range(PENDING_MAX + 1):
        challenge, seen = request(Machine({}), seen, now=NOW)
        nonces.append(challenge.nonce)
    assert seen.pending == tuple(nonces[1:])


def test_only_a_request_made_behind_the_latest_time_mends_a_clock() -> None:
    ahead = LicensesSeen(latest=NOW)
    for back, mends in (
        (timedelta(0), False),
        (CLOCK_TOLERANCE, False),
        (CLOCK_TOLERANCE + timedelta(seconds=1), True),
    ):
        challenge, seen = request(Machine({}), ahead, now=NOW - back)
        assert seen.mending == (challenge.nonce if mends else "")


def test_what_was_seen_is_kept_in_a_private_file_and_changed_in_one_step(tmp_path: Path) -> None:
    folder = tmp_path / "host"
    assert read_licenses_seen(folder) == LicensesSeen()
    first = update_licenses_seen(folder, lambda seen: request(Machine({}), seen, now=NOW))
    second = update_licenses_seen(folder, lambda seen: request(Machine({}), seen, now=NOW))
    assert read_licenses_seen(folder).pending == (first.nonce, second.nonce)
    assert (folder / SEEN_FILE).stat().st_mode & 0o077 == 0
    assert folder.stat().st_mode & 0o077 == 0


def test_a_change_that_fails_changes_nothing_and_leaves_no_lock(tmp_path: Path) -> None:
    def fail(_seen: LicensesSeen) -> tuple[None, LicensesSeen]:
        raise FormatError("refused")

    update_licenses_seen(tmp_path, lambda seen: request(Machine({}), seen, now=NOW))
    before = read_licenses_seen(tmp_path)
    with pytest.raises(FormatError, match="refused"):
        update_licenses_seen(tmp_path, fail)
    assert read_licenses_seen(tmp_path) == before
    written = (tmp_path / SEEN_FILE).stat().st_ino
    update_licenses_seen(tmp_path, lambda seen: (None, seen))
    assert (tmp_path / SEEN_FILE).stat().st_ino == written


def test_processes_that_start_together_lose_nothing_of_each_other(tmp_path: Path) -> None:
    def ask(_number: int) -> str:
        return update_licenses_seen(tmp_path, lambda seen: request(Machine({}), seen, now=NOW)).nonce

    with ThreadPoolExecutor(8) as pool:
        nonces = set(pool.map(ask, range(PENDING_MAX)))
    assert set(read_licenses_seen(tmp_path).pending) == nonces


def test_a_damaged_memory_stops_everything_and_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / SEEN_FILE).write_bytes(b"{}")
    with pytest.raises(FormatError, match="is not what a host remembers"):
        update_licenses_seen(tmp_path, lambda seen: (None, seen))
    assert (tmp_path / SEEN_FILE).read_bytes() == b"{}"


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "host").write_text("a file")
    with pytest.raises(StorageError):
        update_licenses_seen(tmp_path / "host", lambda seen: (None, seen))
