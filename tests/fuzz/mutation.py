"""Valid inputs made invalid, by the byte and by the value: a function of a random generator alone."""

import contextlib
import copy
import json
import random
from typing import Any

# What parsers stumble over, as bytes ...
TOKENS = [
    b"\x00", b"\xff", b"\xc3\x28", b"\xed\xa0\x80", b"\xf0\x9f\x98\x80", b"\xe2\x80\xa8", b"\x1b[31m",
    b"\r\n", b"\n", b'"', b"'", b"[", b"]", b"{", b"}", b",", b":", b"-", b"&a ", b"*a",
    b"!!python/object:os.system ", b"!x ", b"<<: ", b"? ", b"| ", b"> ", b"null", b"true", b"NaN",
    b"Infinity", b"-Infinity", b"1e999", b"-0", b"0x10", b"9" * 400, b"1_0", b"\\u0000", b"\\ud800", b"../",
    b"/etc/passwd", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x05", b"\xd6\xff\x00\x00\x00\x00", b"\x80", b"\x90",
    b"\xc0", b"\xcb\x7f\xf8\x00\x00\x00\x00\x00\x00", b"\xcf" + b"\xff" * 8, b"\xd3" + b"\xff" * 8, b"[" *
    3000, b"{\"a\":" * 2000, b"\x91" * 2000, b" " * 5000, b",,,,", b"#",
]  # fmt: skip
# ... in the place of a number in a row ...
FIELDS = [
    b"", b"0", b"-0.0", b"-1", b"1", b"nan", b"inf", b"-inf", b"1e308", b"-1e308", b"5e-324", b"1e-45",
    b"-5.5", b"1e18", b"1000000000000000000", b"-1000000000000000000", b"9" * 400, b"1" * 5000, b"1e999",
    b"1,5", b"1_0", b" 7 ", b"0x10", b"[1]", b"{}", b"null", b"true", b"x", b'"', b'"a"', b"\x00", b"\xff",
    b"\xed\xa0\x80", "\u0663".encode(), b"\r", b"2026-01-31", b"0001-01-01T00:00:00+23:59",
    b"9999-12-31T23:59:59-23:59",
]  # fmt: skip
# ... and as values in the place of others.
VALUES: list[Any] = [
    "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59", "2026-01-31T12:00:00", "0001-01-01",
    10**18, -(10**18),     1e18, -5.5, "start", "resume", "finish", "fail", "times", "save",
    None, True, False, 0, 1, -1, 2, 255, 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**30, -(10**30), 0.0,
    -0.0, 0.5, 1e308, 5e-324, float("nan"), float("inf"), float("-inf"), "", "0", "1", "x", "a\nb", "\x00",
    "\x1b[31m", "\u2028", "\ud800", "é", "😀", "../../etc/passwd", "/", ".", "..",
    "shard-00-of-01.safetensors", "F32", "F64", "float64", "object", "x" * 5000, "0" * 64, "f" * 64, [], {},
    [[]], [None], [0] * 50, {"": ""}, {"a": {"b": {}}}, [0, 1], [1, 0], [-1, 4], [0, 2**62],
]  # fmt: skip


def mutated_bytes(data: bytes, random: random.Random) -> bytes:
    """A few cuts, insertions, swaps and flips."""
    result = bytearray(data)
    for _ in range(random.choice((1, 1, 1, 2, 4, 8))):
        at = random.randrange(len(result) + 1)
        match random.randrange(7):
            case 0 if result:
                result[at % len(result)] ^= 1 << random.randrange(8)
            case 1 if result:
                result[at % len(result)] = random.randrange(256)
            case 2:
                del result[at : at + random.choice((1, 2, 8, 100))]
            case 3:
                result[at:at] = random.choice(TOKENS)
            case 4:
                result[at : at + random.randrange(1, 9)] = random.choice(TOKENS)
            case 5:
                start = random.randrange(len(result) + 1)
                result[at:at] = result[start : start + random.choice((1, 10, 200))]
            case _:
                del result[at:]
        if not result:
            break
    return bytes(result)


def mutated_json(document: Any, random: random.Random) -> Any:
    """The document with a few of its values replaced, removed, doubled or renamed."""
    root = [document]
    for _ in range(random.choice((1, 1, 1, 2, 3))):
        places = _places(root)[0 if random.random() < 0.05 else 1 :]  # rarely the document as a whole
        if not places:
            break
        holder, key = random.choice(places)
        change = random.randrange(6)
        if change == 0:
            del holder[key]
        elif change == 1 and isinstance(holder, dict):
            holder[str(random.choice(VALUES))] = copy.deepcopy(holder[key])
        elif change == 2 and isinstance(holder, list):
            holder.insert(random.randrange(len(holder) + 1), copy.deepcopy(holder[key]))
        elif change == 3 and isinstance(holder[key], int | float) and not isinstance(holder[key], bool):
            holder[key] += random.choice((-1, 1, 4, -4, 2**32, 0.5))
        else:
            holder[key] = copy.deepcopy(random.choice(VALUES))
        if not root:
            return None
    return root[0]


def mutated_json_text(data: bytes, random: random.Random) -> bytes:
    """As mutated_json, of JSON text; sometimes its bytes are mutated too."""
    text = json.dumps(mutated_json(json.loads(data), random), indent=random.choice((None, 1))).encode()
    return mutated_bytes(text, random) if random.random() < 0.1 else text


def mutated_lines(data: bytes, random: random.Random) -> bytes:
    """Records as people, tools and disks leave them: lines taken out, doubled, moved, cut; a field of a line
    that says something else; sometimes the bytes anywhere, or of JSON the values."""
    if random.random() < 0.1:
        return mutated_bytes(data, random)
    with contextlib.suppress(ValueError):
        if random.random() < 0.9:
            return mutated_json_text(data, random)
    lines = data.splitlines(keepends=True)
    for _ in range(random.choice((1, 1, 2, 5))):
        at, to = random.randrange(len(lines)), random.randrange(len(lines))
        match random.randrange(10):
            case 0:
                del lines[at]
            case 1:
                lines.insert(to, lines[at])
            case 2:
                lines.insert(to, lines.pop(at))
            case 3:
                lines[at] = mutated_bytes(lines[at], random)
            case 4:
                del lines[min(at, to) : max(at, to)]
            case _:
                lines[at] = _mutated_record(lines[at], random)
        if not lines:
            break
    return b"".join(lines)


def _mutated_record(line: bytes, random: random.Random) -> bytes:
    """One value of a line of JSON, or one field of a line of text, replaced."""
    try:
        document = mutated_json(json.loads(line), random)
        return json.dumps(document).encode() + b"\n"
    except ValueError:
        pass
    mark = b"," if b"," in line else b" "
    fields = line.rstrip(b"\n").split(mark)
    fields[random.randrange(len(fields))] = random.choice(FIELDS)
    return mark.join(fields) + b"\n"


def _places(root: list[Any]) -> list[tuple[Any, Any]]:
    """(list or dict, index or key) of every value; of a long list or table only the ends."""
    found, waiting = [], [root]
    while waiting:
        holder = waiting.pop()
        keys = list(holder) if isinstance(holder, dict) else list(range(len(holder)))
        for key in keys if len(keys) < 40 else keys[:10] + keys[-10:]:
            found.append((holder, key))
            if isinstance(holder[key], list | dict):
                waiting.append(holder[key])
    return found
