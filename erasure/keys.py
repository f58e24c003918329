"""The keys of a register, each in a file of its own, in a folder outside of the register.

`identifiers-N.key` makes the HMAC of names and identifiers, `values-N.key` encrypts (AES-256-GCM), `signing-N.key`
signs the trail (Ed25519). The highest N is in use; the keys before it only check and read what was made with them.
`exclusions.key` makes the digests of the exclusion list.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from .._util.errors import UserError
from .._util.files import atomic, writing
from .extra import extra

Use = Literal["identifiers", "values", "signing"]
USES: tuple[Use, ...] = ("identifiers", "values", "signing")
BYTES = 32
NONCE = 12
NEXT = "put the folder back, or name it by --keys or LOKA_KEYS"


@dataclass(frozen=True)
class Key:
    """A secret of 32 bytes. Its id is a digest of it, which tells nothing about the secret."""

    id: str
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class Mac:
    """An HMAC-SHA256, in hexadecimal, with the id of its key."""

    key: str
    digest: str


@dataclass(frozen=True)
class Sealed:
    """An encrypted value, with the id of its key. `data` begins with the nonce and ends with the tag of AES-GCM."""

    key: str
    data: bytes


@dataclass(frozen=True)
class Signature:
    """An Ed25519 signature, in hexadecimal, with the id of its key."""

    key: str
    value: str


@dataclass(frozen=True)
class Keyring:
    """The keys of a folder by their use, oldest first. The last of each is in use."""

    folder: Path
    identifiers: tuple[Key, ...]
    values: tuple[Key, ...]
    signing: tuple[Key, ...]

    @classmethod
    def load(cls, folder: Path) -> Keyring:
        """Read the keys of a folder.

        Raises:
            UserError: a key is missing, or a file does not hold a key.
        """
        found = {use: tuple(_read(use, path) for path in _files(folder, use)) for use in USES}
        if missing := [use for use in USES if not found[use]]:
            raise UserError(f"the keys for {' and '.join(missing)} are missing from {str(folder)!r}; {NEXT}.")
        return cls(folder, **found)

    @classmethod
    def create(cls, folder: Path) -> Keyring:
        """Make the keys that the folder lacks, readable by their owner only, and read all.

        Raises:
            UserError: the folder cannot be written, or a file does not hold a key.
        """
        with writing(folder):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for use in USES:
            if not _files(folder, use):
                _make(folder / f"{use}-1.key")
        return cls.load(folder)

    def rotated(self) -> Keyring:
        """Make a new key for each use, and read all. The old ones stay."""
        for use in USES:
            _make(self.folder / f"{use}-{_number(_files(self.folder, use)[-1]) + 1}.key")
        return Keyring.load(self.folder)

    def mac(self, text: str) -> Mac:
        """The HMAC of a text under the key in use."""
        return self.macs(text)[-1]

    def macs(self, text: str) -> tuple[Mac, ...]:
        """The HMAC of a text under each key, oldest first."""
        return tuple(
            Mac(k.id, hmac.new(k.secret, text.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest())
            for k in self.identifiers
        )

    def seal(self, data: bytes, about: str) -> Sealed:
        """Encrypt a value. `about` says what it belongs to; it is not secret, but opening needs the same."""
        with extra():
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        key, nonce = self.values[-1], os.urandom(NONCE)
        return Sealed(key.id, nonce + AESGCM(key.secret).encrypt(nonce, data, about.encode()))

    def unseal(self, sealed: Sealed, about: str) -> bytes:
        """Decrypt what `seal` gave.

        Raises:
            UserError: the key is missing, or the value was touched.
        """
        with extra():
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        key = next((k for k in self.values if k.id == sealed.key), None)
        if key is None:
            raise UserError(
                f"the key {sealed.key} of the encrypted value of {about} is missing from {str(self.folder)!r}; {NEXT}."
            )
        nonce, data = sealed.data[:NONCE], sealed.data[NONCE:]
        try:
            return AESGCM(key.secret).decrypt(nonce, data, about.encode())
        except (InvalidTag, ValueError):
            raise UserError(
                f"the encrypted value of {about} was touched, or belongs elsewhere; restore the register from a backup."
            ) from None

    def sign(self, message: bytes) -> Signature:
        """Sign a message with the key in use."""
        with extra():
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        key = self.signing[-1]
        return Signature(key.id, Ed25519PrivateKey.from_private_bytes(key.secret).sign(message).hex())

    def signed(self, message: bytes, signature: Signature) -> bool:
        """Whether this is the signature of the message by one of the keys."""
        with extra():
            from cryptography.exceptions import InvalidSignature
            from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
        key = next((k for k in self.signing if k.id == signature.key), None)
        if key is None or not re.fullmatch("[0-9a-f]{128}", signature.value):
            return False
        try:
            public = Ed25519PrivateKey.from_private_bytes(key.secret).public_key()
            public.verify(bytes.fromhex(signature.value), message)
        except InvalidSignature:
            return False
        return True


def exclusion_key(folder: Path, *, create: bool = False) -> bytes:
    """The key of the exclusion list's digests. It is never rotated, because digests cannot be turned back.

    Args:
        create: make it where there is none.

    Raises:
        UserError: it is missing, or the file does not hold a key.
    """
    path = folder / "exclusions.key"
    if create and not path.exists():
        _make(path)
    if not path.exists():
        raise UserError(f"the key of the exclusion list is missing from {str(folder)!r}; {NEXT}.")
    return _read("exclusions", path).secret


def _files(folder: Path, use: Use) -> list[Path]:
    named = [path for path in folder.glob(f"{use}-*.key") if re.fullmatch(rf"{use}-[1-9]\d*\.key", path.name)]
    return sorted(named, key=_number)


def _number(path: Path) -> int:
    return int(path.stem.rpartition("-")[2])


def _read(use: str, path: Path) -> Key:
    try:
        text = path.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"the key file {str(path)!r} cannot be read ({error}); {NEXT}.") from error
    if not re.fullmatch(f"[0-9a-f]{{{2 * BYTES}}}", text):
        raise UserError(f"{str(path)!r} does not hold a key of {2 * BYTES} hexadecimal digits; {NEXT}.")
    secret = bytes.fromhex(text)
    return Key(hashlib.sha256(f"loka {use} key ".encode() + secret).hexdigest()[:16], secret)


def _make(path: Path) -> None:
    with atomic(path) as temporary:
        descriptor = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(os.urandom(BYTES).hex() + "\n")
