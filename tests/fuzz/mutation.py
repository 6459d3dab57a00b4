"""Damage to whole inputs: bytes and words at random, values of JSON, and arrays inside an npz."""

import io
import json
import zipfile
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

ODD_TEXTS = (
    "",
    " ",
    "nan",
    "../../x",
    "/abs/x",
    "a\nb",
    "<script>x</script>",
    "</title>",
    "a|b",
    "[x](y)",
    "$x$",
    "$",
    "\\",
    "[red]",
    "[/red]",
    "\x1b[2J",
    "\x00",
    "\ud800",
    "é" * 300,
    "x" * 5000,
    "{i}",
    "%s",
)
ODD_NUMBERS = (0, -1, 1, 2, 1e308, -1e308, 5e-324, 0.5, 10**9, 10**12, 10**30, 10**400, 2**63, -(2**63), 255)
ODD_VALUES = (None, True, False, *ODD_NUMBERS, *ODD_TEXTS, [], {}, [[]], [None], {"a": 1}, [1, "a"])


def mutated(seed: bytes, random: Random, words: Sequence[str] = ()) -> bytes:
    """``seed`` after one to four changes, in the way that its kind allows or in any bytes."""
    kinds: list[Callable[[bytes, Random, Sequence[str]], bytes]] = [_in_bytes, _in_words]
    if seed[:1] in b"{[":
        kinds += [_in_json] * 4
    if seed[:4] == b"PK\x03\x04":
        kinds += [_in_archive] * 4
    kind = random.choice(kinds)
    for _ in range(random.randint(1, 4)):
        seed = kind(seed, random, words)
    return seed


def _in_bytes(data: bytes, random: Random, words: Sequence[str]) -> bytes:
    """Bytes changed, cut out, doubled, or put in."""
    at = random.randint(0, len(data))
    end = min(len(data), at + random.choice((1, 1, 2, 4, 8, 60, 1000)))
    action = random.randint(0, 5)
    if action == 0:
        return data[:at]
    if action == 1:
        return data[:at] + data[end:]
    if action == 2:
        return data[:end] + data[at:]
    new = bytes(random.choice((0, 1, 127, 128, 255, random.randint(0, 255))) for _ in range(end - at))
    return data[:at] + new + data[at if action == 3 else end :]


def _in_words(data: bytes, random: Random, words: Sequence[str]) -> bytes:
    """A word, number or odd text put in place of a piece between separators."""
    pieces = [i for i, byte in enumerate(data) if byte in b" ,=:\n\"'[]{}|"]
    if not pieces:
        return _in_bytes(data, random, words)
    at = random.choice(pieces)
    end = next((i for i in pieces if i > at), len(data))
    word = str(random.choice((*words, *ODD_TEXTS, *ODD_NUMBERS[:-4], *words)))
    return data[: at + 1] + word.encode(errors="surrogatepass") + data[end:]


def _in_json(data: bytes, random: Random, words: Sequence[str]) -> bytes:
    """A value of one of its objects replaced, dropped, renamed, or copied to elsewhere."""
    lines = data.splitlines() if data.count(b"\n{") else [data]
    at = random.randrange(len(lines))
    try:
        content = json.loads(lines[at])
    except (ValueError, RecursionError):
        return _in_bytes(data, random, words)
    holders = _holders(content)
    if not holders:
        return json.dumps(random.choice(ODD_VALUES)).encode()
    holder, key = random.choice(holders)
    action = random.randint(0, 5)
    if action == 0:
        del holder[key]
    elif action == 1 and isinstance(holder, dict):
        holder[random.choice((*ODD_TEXTS, "artifacts", "cost"))] = holder.pop(key)
    elif action == 2:
        other, place = random.choice(holders)
        holder[key] = json.loads(json.dumps(other[place])) if place in _keys(other) else None
    else:
        holder[key] = random.choice(ODD_VALUES)
    lines[at] = json.dumps(content).encode()
    return b"\n".join(lines) + (b"\n" if data.endswith(b"\n") else b"")


def _keys(holder: Any) -> Sequence[Any]:
    return list(holder) if isinstance(holder, dict) else range(len(holder))


def _holders(content: Any) -> list[tuple[Any, Any]]:
    """(object or list, key or index) of every value inside."""
    found: list[tuple[Any, Any]] = []
    waiting = [content]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict | list):
            found += [(one, key) for key in _keys(one)]
            waiting += list(one.values()) if isinstance(one, dict) else one
    return found


def _in_archive(data: bytes, random: Random, words: Sequence[str]) -> bytes:
    """A member renamed, dropped, or damaged before it is packed again."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            members = [(name, archive.read(name)) for name in archive.namelist()]
    except (zipfile.BadZipFile, EOFError, ValueError, NotImplementedError, RuntimeError, OSError):
        return _in_bytes(data, random, words)
    except Exception:  # noqa: BLE001 - zlib and what else a damaged archive raises
        return _in_bytes(data, random, words)
    if not members:
        return _in_bytes(data, random, words)
    at = random.randrange(len(members))
    name, content = members[at]
    action = random.randint(0, 6)
    if action == 0:
        members.pop(at)
    elif action == 1:
        members[at] = (random.choice(members)[0] + random.choice(("", ".npy", "/x")), content)
    elif action < 5:
        members[at] = (name, _in_header(content, random))
    else:
        members[at] = (name, _in_bytes(content, random, words))
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))) as archive:
        for name, content in members:
            info = zipfile.ZipInfo(name or "x")
            archive.writestr(info, content)
    return out.getvalue()


_TYPES = (b"|O", b"<i8", b"<f4", b"|u1", b"<U9", b"|S3", b"<M8[s]", b"|V8", b"<c16", b"|b1", b">f2", b"<f16")
_SHAPES = (
    b"()",
    b"(0,)",
    b"(1,)",
    b"(9999999999,)",
    b"(3, 3)",
    b"(2, 0, 4)",
    b"(1, 1, 1, 1)",
    b"(-1,)",
    b"(99999999999999999999,)",
    b"(4294967296, 4294967296)",
    b"(True,)",
    b"(1, 4, 4, 3)",
)


def _in_header(content: bytes, random: Random) -> bytes:
    """Another type, shape or version in the header of an array."""
    action = random.randint(0, 3)
    if action == 0:
        return content[:6] + bytes((random.randint(0, 4),)) + content[7:]
    key = (b"'descr': '", b"'shape': ")[action % 2]
    start = content.find(key) + len(key)
    end = content.find((b"'", b")")[action % 2], start) + action % 2
    if start < len(key) or end < start:
        return content
    new = random.choice((_TYPES, _SHAPES)[action % 2])
    changed = content[:start] + new + content[end:]
    surplus = len(changed) - len(content)
    newline = changed.find(b"\n")
    # The header keeps its length as long as its padding allows.
    if surplus > 0 and changed[newline - surplus : newline].isspace():
        return changed[: newline - surplus] + changed[newline:]
    return changed[:newline] + b" " * -surplus + changed[newline:] if surplus < 0 else changed
