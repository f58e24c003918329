"""Mangled files by seed: single bits and bytes, cut and repeated parts, and values that no file should hold."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import yaml

VALUES = [
    b"null", b"true", b"[]", b"{}", b'""', b"-1", b"0", b"NaN", b"1e999", b"-Infinity", b"9" * 40, b"9" * 5000,
    b"1e-320", b'"\\ud800"', b'"\\u0000"', b"'", b"[[[[[[[[[[", b"[" * 2000, b"{" * 2000, b'{"a": ' * 1500,
    b"&a [*a]", b"*a", b"? ", b"!!python/object/apply:os.getcwd []", b'"../../../etc/passwd"', b"/dev/zero",
    b"\xff\xfe", b"\xef\xbb\xbf", b"\x00", b"\t", b"\r", b"\n\n", b"\n- ", b": ", b"100000", b"2024-13-45", b"0x1F",
    b"1_000", b"~",
]  # fmt: skip
# In the place of a member of JSON or YAML. NaN and infinities are written as Python writes them.
MEMBERS: list[Any] = [
    None, True, False, [], {}, "", "x", -1, 0, 1, 2, 3, 0.5, -0.5, 1e308, 1e-320, 2**31, 2**63, 10**40, float("nan"),
    float("inf"), "\ud800", "\0", "a\nb", " ", "1", "all", "../../../etc/passwd", "/dev/zero", "2024-13-45",
    "9999-12-31", "{}", "{{ x }}", "<b>", [[[[[[[[[[]]]]]]]]]], [1, "a", None], {"a": {"b": []}}, ["x"] * 1000,
]  # fmt: skip
TOKEN = re.compile(rb"-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?|\"[^\"]*\"|true|false|null|[\[\]{},:]|\w+")
Mangler = Callable[[bytes, random.Random], bytes]


def flip(data: bytes, rng: random.Random) -> bytes:
    """A few flipped bits."""
    out = bytearray(data or b" ")
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


def member(data: bytes, rng: random.Random) -> bytes:
    """Another value, name or order of members in a JSON file, or in one of its lines; it stays JSON."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        lines = data.split(b"\n")
        if len(lines) == 1:
            return value(data, rng)
        at = rng.randrange(len(lines))
        return b"\n".join([*lines[:at], member(lines[at], rng), *lines[at + 1 :]])
    return json.dumps(_changed(content, rng), indent=None if b"\n" not in data else 2).encode()


def yaml_member(data: bytes, rng: random.Random) -> bytes:
    """Another value, name or order of members in a YAML file, which becomes JSON: that is YAML, too."""
    try:
        return json.dumps(_changed(yaml.safe_load(data), rng), default=str).encode()
    except (ValueError, RecursionError, yaml.YAMLError, AttributeError, TypeError):
        return value(data, rng)


def _changed(content: Any, rng: random.Random) -> Any:
    """A value with one change at a random place in it."""
    places = list(_places(content))
    if not places:
        return rng.choice(MEMBERS)
    within, key = rng.choice(places)
    what = rng.random()
    if what < 0.6:
        within[key] = rng.choice(MEMBERS)
    elif what < 0.7:
        del within[key]
    elif what < 0.85:
        of, other = rng.choice(places)
        if _depth(of[other]) < 20:
            within[key] = json.loads(json.dumps(of[other]))
    elif isinstance(within, dict):
        within[rng.choice(["", "x", "__class__", f"{key}x", str(rng.choice(places)[1])])] = within.pop(key)
    else:
        within.append(within[key])
    return content


def _places(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every list and mapping within a value, with each of its keys."""
    if isinstance(content, dict | list):
        for key in list(content) if isinstance(content, dict) else range(len(content)):
            yield content, key
            yield from _places(content[key])


def _depth(content: Any) -> int:
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    return 1 + max(map(_depth, parts), default=0)


TEXT: tuple[Mangler, ...] = (value, value, value, flip, cut, repeat, noise)


JSON: tuple[Mangler, ...] = (*TEXT, *(member,) * 7)
YAML: tuple[Mangler, ...] = (*TEXT, *(yaml_member,) * 3)


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
    new = rng.choice((value, member, flip))(data[8 : 8 + size], rng)
    return len(new).to_bytes(8, "little") + new + data[8 + size :]


def tensor(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file that is whole, with a tensor of another shape, type or name, or with two exchanged."""
    size = int.from_bytes(data[:8], "little")
    try:
        head = json.loads(data[8 : 8 + size])
        names = [name for name in head if name != "__metadata__"]
        one, other = head[rng.choice(names)], head[rng.choice(names)]
        rng.choice((_reshape, _retype, _exchange))(one, other, rng)
    except (ValueError, RecursionError, IndexError, KeyError, TypeError, AttributeError):
        return flip(data, rng)
    new = json.dumps(head).encode()
    return len(new).to_bytes(8, "little") + new + data[8 + size :]


def _reshape(one: dict[str, Any], other: dict[str, Any], rng: random.Random) -> None:
    shape = one["shape"]
    one["shape"] = rng.choice((shape[::-1], [*shape, 1], [1, *shape], [shape[0] * shape[-1]], [2 * shape[0], *shape]))


def _retype(one: dict[str, Any], other: dict[str, Any], rng: random.Random) -> None:
    """Another type of the same number of bytes, or of half as many for twice the numbers."""
    if rng.random() < 0.5:
        one["dtype"] = rng.choice(("I32", "U32", "F64", "F8_E4M3", "BOOL", "I8"))
    else:
        one |= {"dtype": rng.choice(("F16", "BF16", "I16")), "shape": [2 * one["shape"][0], *one["shape"][1:]]}


def _exchange(one: dict[str, Any], other: dict[str, Any], rng: random.Random) -> None:
    for key in ("data_offsets", rng.choice(("shape", "data_offsets"))):
        one[key], other[key] = other[key], one[key]


def number(data: bytes, rng: random.Random) -> bytes:
    """A safetensors file with another number in the place of one of its own."""
    first = min(8 + int.from_bytes(data[:8], "little"), len(data))
    if len(data) - first < 4:
        return flip(data, rng)
    at = first + rng.randrange((len(data) - first) // 4) * 4
    new = rng.choice((float("nan"), float("inf"), -0.0, 1e-40, 3e38, -1.0, 1.0))
    return data[:at] + struct.pack("<f", new) + data[at + 4 :]


TENSORS: tuple[Mangler, ...] = (header, header, tensor, tensor, number, flip, cut, noise)
