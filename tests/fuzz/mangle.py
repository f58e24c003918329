"""Mangled files by seed: single bits and bytes, cut and repeated parts, and values that no file should hold."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

VALUES = [
    b"null", b"true", b"[]", b"{}", b'""', b"-1", b"0", b"NaN", b"1e999", b"-Infinity", b"9" * 40, b"9" * 5000,
    b"1e-320", b'"\\ud800"', b'"\\u0000"', b"'", b"[[[[[[[[[[", b"[" * 2000, b"{" * 2000, b'{"a": ' * 1500,
    b"&a [*a]", b"*a", b"? ", b"!!python/object/apply:os.getcwd []", b'"../../../etc/passwd"', b"/dev/zero",
    b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\t", b"\r", b"\n\n", b"\n- ", b": ", b"100000", b"2024-13-45", b"0x1F",
    b"1_000", b"~",
]  # fmt: skip
TOKEN = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|\"[^\"]*\"|true|false|null|[\[\]{},:]|\w+")
Mangler = Callable[[bytes, random.Random], bytes]


def flip(data: bytes, rng: random.Random) -> bytes:
    """A few flipped bits."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 8))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def cut(data: bytes, rng: random.Random) -> bytes:
    """A part that is missing, often the end."""
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:start] if rng.random() < 0.5 else data[:start] + data[end:]


def repeat(data: bytes, rng: random.Random) -> bytes:
    """A part that stands there twice."""
    start, end = sorted(rng.randrange(len(data) + 1) for _ in range(2))
    return data[:end] + data[start : min(end, start + 5000)] + data[end:]


def value(data: bytes, rng: random.Random) -> bytes:
    """A value, name or sign in the place of another."""
    tokens = list(TOKEN.finditer(data))
    if not tokens:
        return flip(data, rng)
    at = rng.choice(tokens)
    new = rng.choice(VALUES) if rng.random() < 0.8 else rng.choice(tokens)[0]
    return data[: at.start()] + new + data[at.end() :]


def noise(data: bytes, rng: random.Random) -> bytes:
    """Random bytes in between, or nothing but these."""
    at, more = rng.randrange(len(data) + 1), rng.randbytes(rng.choice((1, 4, 100)))
    return more if rng.random() < 0.1 else data[:at] + more + data[at:]


TEXT: tuple[Mangler, ...] = (value, value, value, flip, cut, repeat, noise)


def mangled(data: bytes, seed: int, ways: tuple[Mangler, ...] = TEXT) -> bytes:
    """One to three changes of a file's bytes."""
    rng = random.Random(seed)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        data = rng.choice(ways)(data or b" ", rng)
    return data


def header(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with a mangled header whose stated length fits it, so that the reader gets past the length."""
    size = int.from_bytes(data[:8], "little")
    if size + 8 > len(data):
        return flip(data, rng)
    new = value(data[8 : 8 + size], rng)
    return len(new).to_bytes(8, "little") + new + data[8 + size :]


TENSORS: tuple[Mangler, ...] = (header, header, flip, cut, noise)
