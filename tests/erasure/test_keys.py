"""Keys: made for their owner alone, found again, and never guessed at when one is missing."""

import hashlib
import hmac
import os
from pathlib import Path

import pytest

from loka import UserError
from loka.erasure import Keyring


@pytest.fixture
def keyring(tmp_path: Path) -> Keyring:
    return Keyring.create(tmp_path / "keys")


def test_made_once_and_for_the_owner_alone(keyring: Keyring) -> None:
    files = sorted(keyring.folder.iterdir())
    assert [file.name for file in files] == ["identifiers-1.key", "signing-1.key", "values-1.key"]
    assert [file.stat().st_mode & 0o777 for file in (keyring.folder, *files)] == [0o700, 0o600, 0o600, 0o600]
    assert Keyring.create(keyring.folder) == Keyring.load(keyring.folder) == keyring
    secrets = [key.secret for key in (*keyring.identifiers, *keyring.values, *keyring.signing)]
    assert len(set(secrets)) == 3
    assert not any(secret.hex() in repr(keyring) or repr(secret) in repr(keyring) for secret in secrets)


def test_identifiers_are_hmac_sha256(keyring: Keyring) -> None:
    secret = bytes.fromhex((keyring.folder / "identifiers-1.key").read_text())
    assert keyring.mac("C-4711").digest == hmac.new(secret, b"C-4711", hashlib.sha256).hexdigest()


def test_values_are_opened_only_whole_and_in_their_place(keyring: Keyring) -> None:
    sealed = keyring.seal(b"Erika", "ER-1")
    assert keyring.unseal(sealed, "ER-1") == b"Erika"
    assert sealed.data != keyring.seal(b"Erika", "ER-1").data
    for index in range(len(sealed.data)):
        data = bytearray(sealed.data)
        data[index] ^= 1
        with pytest.raises(UserError, match="was touched"):
            keyring.unseal(type(sealed)(sealed.key, bytes(data)), "ER-1")
    with pytest.raises(UserError, match="was touched, or belongs elsewhere"):
        keyring.unseal(sealed, "ER-2")


def test_after_rotation_the_old_keys_still_read_and_verify(keyring: Keyring) -> None:
    sealed, signature, mac = keyring.seal(b"Erika", "ER-1"), keyring.sign(b"text"), keyring.mac("C-4711")
    later = keyring.rotated()
    assert later.unseal(sealed, "ER-1") == b"Erika"
    assert later.signed(b"text", signature)
    assert not later.signed(b"texts", signature)
    assert later.macs("C-4711")[0] == mac != later.mac("C-4711")
    assert {later.seal(b"x", "y").key, later.sign(b"x").key}.isdisjoint({sealed.key, signature.key})
    assert [file.stat().st_mode & 0o777 for file in later.folder.iterdir()] == [0o600] * 6


def test_the_tenth_rotation_is_the_newest(keyring: Keyring) -> None:
    for _ in range(9):
        keyring = keyring.rotated()
    newest = bytes.fromhex((keyring.folder / "values-10.key").read_text())
    assert keyring.values[-1].secret == newest


def test_a_missing_or_damaged_key_is_named(keyring: Keyring) -> None:
    sealed = keyring.seal(b"Erika", "ER-1")
    path = keyring.folder / "values-1.key"
    text = path.read_text()
    path.unlink()
    with pytest.raises(UserError, match="the keys for values are missing"):
        Keyring.load(keyring.folder)
    path.write_text(text[:-2])
    with pytest.raises(UserError, match=r"values-1\.key' does not hold a key of 64 hexadecimal digits"):
        Keyring.load(keyring.folder)
    path.write_text(os.urandom(32).hex())
    with pytest.raises(UserError, match=f"the key {sealed.key} .* is missing"):
        Keyring.load(keyring.folder).unseal(sealed, "ER-1")
