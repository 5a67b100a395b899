"""The JSON texts that clients send: a body taken apart into events, the key of an event, what is wrong with a text."""

from __future__ import annotations

import re

import msgspec

from modelstream.messages.codec import UnreadableError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
"""The byte order mark that some editors put at the beginning of a UTF-8 file."""
MAX_LINE = 1_000_000
"""Bytes of the longest event. A longer line is cut by its reader and becomes a dead letter."""
MOST_EXACT = 2**53
"""Whole numbers up to this one are exact in float64."""

_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_ANY = msgspec.json.Decoder(msgspec.Raw)
_ARRAY = msgspec.json.Decoder(list[msgspec.Raw])
_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_KEY = msgspec.json.Decoder(str | int | float)


def split_body(body: bytes) -> list[bytes]:
    r"""Return the events of a JSON body, one text each: an object, an array of them, or NDJSON.

    Broken parts are returned as they are, and become rejects when they are parsed. Raises `UnreadableError` for a
    broken array, in which one event can't be told from the next.

    >>> split_body(b'[{"a": 1}, {"a": 2}]')
    [b'{"a": 1}', b'{"a": 2}']
    >>> split_body(b'{"a": 1}\n\n{"a": 2}\n')
    [b'{"a": 1}', b'{"a": 2}']
    """
    text = body.strip()
    if text.startswith(b"["):
        try:
            return _elements(text)
        except msgspec.DecodeError as error:
            raise UnreadableError(f"a broken JSON array: {why_not_json(text, error)}") from error
        except RecursionError as error:
            raise UnreadableError(f"a broken JSON array: {error}") from error
    lines = [line for raw in text.split(b"\n") if (line := raw.strip())]
    if len(lines) > 1 and not _is_json(lines[0]) and _is_json(text):
        return [text]
    return lines


def _elements(text: bytes) -> list[bytes]:
    """Return the elements of a JSON array. Half a surrogate pair in one of them does not harm the others."""
    try:
        return [bytes(item) for item in _ARRAY.decode(text)]
    except msgspec.DecodeError:
        mended = without_half_pairs(text)
        if mended == text:
            raise
    found, at = [], 0
    for item in _ARRAY.decode(mended):
        at = mended.index(bytes(item), at)
        found.append(text[at : at + len(bytes(item))])
        at += len(bytes(item))
    return found


def _is_json(text: bytes) -> bool:
    try:
        _ANY.decode(without_half_pairs(text))
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def without_half_pairs(text: bytes) -> bytes:
    r"""Return JSON text with U+FFFD in place of escapes that are half a surrogate pair, each as long as before.

    The grammar of JSON allows them, and JavaScript writes them when a text was cut within an emoji; but they are no
    characters, so nothing that stores text in UTF-8 can hold them.

    >>> without_half_pairs(rb'{"a": "\ud83d", "b": "\ud83d\ude00"}')
    b'{"a": "\\ufffd", "b": "\\ud83d\\ude00"}'
    """
    if b"\\u" not in text:
        return text
    escapes = [(match.start(), int(match[1] or b"0", 16)) for match in _ESCAPE.finditer(text)]
    mended = bytearray(text)
    place = 0
    while place < len(escapes):
        at, code = escapes[place]
        following = escapes[place + 1] if place + 1 < len(escapes) else (0, 0)
        place += 1
        if 0xD800 <= code < 0xDC00 and following[0] == at + 6 and 0xDC00 <= following[1] < 0xE000:
            place += 1
        elif 0xD800 <= code < 0xE000:
            mended[at : at + 6] = b"\\ufffd"
    return bytes(mended)


def utf_16(text: bytes) -> str:
    """Return, for an error message, that a text is UTF-16; "" if it doesn't look like that."""
    marked = text.startswith((b"\xff\xfe", b"\xfe\xff"))
    return "; it looks like UTF-16: send UTF-8" if marked or 3 * text.count(b"\0") > len(text) else ""


def why_not_json(text: bytes, error: msgspec.DecodeError) -> str:
    """Return why a text is no JSON, or none that can be kept, in words; `error` is what the decoder said."""
    if hint := utf_16(text):
        return f"not UTF-8 text{hint}"
    mended = without_half_pairs(text)
    if mended != text and _is_json(mended):
        at = next(i for i in range(len(text)) if text[i] != mended[i]) - 2
        shown = text[at : at + 6].decode("ascii", "replace")
        return f"{shown} at byte {at} is half a UTF-16 surrogate pair, not a character"
    return f"not JSON: {str(error).removeprefix('JSON is malformed: ')}"


def key_of(line: bytes, key_path: str) -> str:
    """Return the key of an event's JSON text as parsing finds it, or "" where it finds none.

    `key_path` is the key's name, or the names on the way to it with dots between them. This is slow but exact; the
    readers' fast search for the key must agree with it.

    >>> key_of(b'{"user": 123.0}', "user"), key_of(b'{"user": null}', "user"), key_of(b'{"a": {"b": "u1"}}', "a.b")
    ('123', '', 'u1')
    """
    try:
        value: bytes | msgspec.Raw = line
        for name in key_path.split("."):
            value = _OBJECT.decode(value)[name]
        return identifier_text(_KEY.decode(value))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, KeyError, UnreadableError):
        return ""


def identifier_text(value: str | float) -> str:
    """Return a key or an identifier as text. Raises UnreadableError for a number that isn't plainly whole.

    >>> identifier_text(10001.0), identifier_text(10**20)
    ('10001', '100000000000000000000')
    """
    return value if isinstance(value, str) else str(whole(value))


def whole(value: float) -> int:
    """Return a number without a fraction, which JSON may write as 5, 5.0 or 5e0, as an integer.

    Raises UnreadableError for one with a fraction, and for a float above 2^53, which may stand for several integers.
    """
    if isinstance(value, float) and not (value.is_integer() and abs(value) <= MOST_EXACT):
        raise UnreadableError(f"{value} is not a whole number")
    return int(value)
