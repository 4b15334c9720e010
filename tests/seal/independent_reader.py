"""A second reader of sealed files, written from docs/format.md and the RFCs it names; imports nothing of Palladion.

It shares no code with the first one, so a mistake would have to be made twice to go unseen. HPKE is spelled out too.
"""

import hmac
import json
import re
from hashlib import sha3_256, sha256, shake_256
from typing import Any

from blake3 import blake3
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

Files = dict[str, bytes]
SEGMENT = 1048576
MEMBERS = "content created file_id kind model previous publisher purpose recipient suite version"


def read(
    data: bytes, publisher: bytes, x25519: bytes = b"", hybrid: bytes = b"", passphrase: str = "", licence: bool = False
) -> Files:
    """The files in a sealed file, by name. Raises on anything wrong. Whoever says `licence` has looked at one."""
    # §2: where the parts lie
    assert data[:12] == bytes.fromhex("93 50 41 4C 4C 0D 0A 1A 01 00 00 00"), "magic, version"
    header_length = int.from_bytes(data[12:16], "little")
    footer = data[-48:]
    assert footer[44:] == bytes.fromhex("4C 4C 41 50"), "tail magic"
    body_length, trailer_length = int.from_bytes(footer[:8], "little"), int.from_bytes(footer[8:12], "little")
    segments = (body_length + SEGMENT - 1) // SEGMENT
    lengths = [16, header_length, 74, body_length, 32 * segments, trailer_length, 48]
    assert sum(lengths) == len(data), "cut off, or appended"
    parts = [data[sum(lengths[:part]) :][: lengths[part]] for part in range(7)]
    _, header, floe_header, body, digests, trailer, _ = parts
    assert blake3(trailer).digest() == footer[12:44], "trailer digest"
    # §3, §6: canonical JSON, publisher's signature
    head, tail = _canonical(header), _canonical(trailer)
    assert head["suite"] == "FLOE-AES256GCM-SHA384-1MiB"
    assert " ".join(sorted(head.keys() - {"base", "license"})) == MEMBERS, "members"
    assert re.fullmatch("onnx|safetensors|gguf|folder|adapter|opaque|keyring|backup", head["kind"]), "kind"
    assert re.fullmatch("[0-9a-f]{64}", head.get("base", "0" * 64)), "base"
    assert "license" not in head or (head["license"] == "required" and licence), "license"
    assert head["publisher"] == sha256(b"palladion/v1/publisher" + publisher).hexdigest()[:16], "publisher"
    numbers = segments.to_bytes(8, "little") + body_length.to_bytes(8, "little")
    message = b"palladion/v1/sealed-file" + sha256(header).digest() + floe_header + numbers + blake3(digests).digest()
    Ed25519PublicKey.from_public_bytes(publisher).verify(bytes.fromhex(tail["signature"]), message)
    # §7: the file key
    file_key = None
    for wrap in tail["wraps"]:
        bound = bytes.fromhex(head["file_id"]) + sha256(floe_header).digest()
        context = b"palladion/v1/file-key" + bound + f"{wrap['kind']}/{wrap['key_id']}".encode()
        if wrap["kind"] == "x25519" and x25519:
            file_key = _x25519(bytes.fromhex(wrap["blob"]), x25519, context)
        if wrap["kind"] == "mlkem768-x25519" and hybrid:
            file_key = _hybrid(bytes.fromhex(wrap["blob"]), hybrid, context)
        if wrap["kind"] == "passphrase" and passphrase:
            file_key = _passphrase(bytes.fromhex(wrap["blob"]), passphrase, wrap["parameters"], context)
    assert file_key is not None, "no wrap"
    payload = _floe(file_key, floe_header, body, b"palladion/v1/sealed-body" + sha256(header).digest())
    listed = [blake3(body[begin : begin + SEGMENT]).digest() for begin in range(0, body_length, SEGMENT)]
    assert b"".join(listed) == digests, "segment digests"
    # §5: the files
    files = {}
    place = 4 + int.from_bytes(payload[:4], "little")
    for file in _canonical(payload[4:place])["files"]:
        start = (place + 4095) // 4096 * 4096
        assert payload[place:start] == bytes(start - place), "padding"
        place = start + file["size"]
        files[file["name"]] = payload[start:place]
    assert place == len(payload), "payload length"
    return files


def _floe(key: bytes, header: bytes, body: bytes, aad: bytes) -> bytes:
    """§4."""
    parameters, iv, tag = bytes.fromhex("0000 00100000 00000020"), header[10:42], header[42:]
    assert header[:10] == parameters, "FLOE parameters"

    def derive(prk: bytes, purpose: bytes, length: int) -> bytes:
        return HKDFExpand(hashes.SHA384(), length, parameters + iv + purpose + aad).derive(prk)

    assert hmac.compare_digest(tag, derive(key, b"HEADER_TAG:", 32)), "header tag"
    message_key = derive(key, b"MESSAGE_KEY:", 48)
    plaintext = b""
    for index in range((len(body) + SEGMENT - 1) // SEGMENT):
        segment = body[index * SEGMENT : (index + 1) * SEGMENT]
        last = (index + 1) * SEGMENT >= len(body)
        assert int.from_bytes(segment[:4], "big") == (len(segment) if last else 0xFFFFFFFF), "segment length"
        dek = derive(message_key, b"DEK:" + (index >> 20 << 20).to_bytes(8, "big"), 32)
        plaintext += AESGCM(dek).decrypt(segment[4:16], segment[16:], index.to_bytes(8, "big") + bytes([last]))
    return plaintext


def _passphrase(blob: bytes, passphrase: str, cost: dict[str, Any], context: bytes) -> bytes:
    salt, passes, lanes, memory = bytes.fromhex(cost["salt"]), cost["iterations"], cost["lanes"], cost["memory_kib"]
    kdf = Argon2id(salt=salt, length=32, iterations=passes, lanes=lanes, memory_cost=memory)
    stretched = kdf.derive(passphrase.encode())
    okm = HKDFExpand(hashes.SHA384(), 64, b"palladion/v1/passphrase" + context).derive(stretched)
    assert hmac.compare_digest(blob[:32], okm[32:]), "passphrase"
    return AESGCM(okm[:32]).decrypt(bytes(12), blob[32:], context)


def _x25519(blob: bytes, private: bytes, info: bytes) -> bytes:
    """RFC 9180 §4.1: DHKEM(X25519, HKDF-SHA256) 0x0020."""
    own, kem = X25519PrivateKey.from_private_bytes(private), b"KEM\x00\x20"
    shared = own.exchange(X25519PublicKey.from_public_bytes(blob[:32]))
    extracted = _extract(kem, b"", b"eae_prk", shared)
    secret = _expand(kem, extracted, b"shared_secret", blob[:32] + own.public_key().public_bytes_raw(), 32)
    return _hpke(b"\x00\x20", secret, blob[32:], info)


def _hybrid(blob: bytes, seed: bytes, info: bytes) -> bytes:
    """draft-ietf-hpke-pq: MLKEM768-X25519 0x647a, both private keys from one seed."""
    expanded, point = shake_256(seed).digest(96), blob[1088:1120]
    kem, own = MLKEM768PrivateKey.from_seed_bytes(expanded[:64]), X25519PrivateKey.from_private_bytes(expanded[64:])
    shared = kem.decapsulate(blob[:1088]) + own.exchange(X25519PublicKey.from_public_bytes(point))
    secret = sha3_256(shared + point + own.public_key().public_bytes_raw() + b"\\.//^\\").digest()
    return _hpke(b"\x64\x7a", secret, blob[1120:], info)


def _hpke(kem: bytes, secret: bytes, ciphertext: bytes, info: bytes) -> bytes:
    """RFC 9180 §5.1: base mode, HKDF-SHA256 0x0001, AES-256-GCM 0x0002."""
    hpke = b"HPKE" + kem + b"\x00\x01\x00\x02"
    schedule = b"\x00" + _extract(hpke, b"", b"psk_id_hash", b"") + _extract(hpke, b"", b"info_hash", info)
    prk = _extract(hpke, secret, b"secret", b"")
    key, nonce = _expand(hpke, prk, b"key", schedule, 32), _expand(hpke, prk, b"base_nonce", schedule, 12)
    return AESGCM(key).decrypt(nonce, ciphertext, b"")


def _extract(suite: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + secret, "sha256")


def _expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(hashes.SHA256(), length, labelled).derive(prk)


def _canonical(data: bytes) -> Any:
    value = json.loads(data)
    assert json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() == data, "canonical"
    return value
