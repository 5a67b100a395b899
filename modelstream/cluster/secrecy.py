"""Recognises secrets by their names.

Such values are not allowed in files, and are masked wherever they would be shown.
"""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlsplit

# Each name as a word of its own: KEYBOARD and TOKENIZER are none. The path of a file is none either.
_SECRET_NAME = re.compile(r"(^|_)(PASSWORD|PASSWD|SECRET|TOKEN|KEY|CREDENTIALS?)(_|$)", re.IGNORECASE)
_PATH_NAME = re.compile(r"_(LOCATION|FILE)$", re.IGNORECASE)


def is_secret(name: str) -> bool:
    """Tell whether a variable's name says that its value is a secret.

    >>> [name for name in ("REDIS_PASSWORD", "V3IO_ACCESS_KEY", "KEYBOARD", "SSL_KEY_LOCATION") if is_secret(name)]
    ['REDIS_PASSWORD', 'V3IO_ACCESS_KEY']
    """
    return bool(_SECRET_NAME.search(name)) and not _PATH_NAME.search(name)


def has_password(value: str) -> bool:
    """Tell whether a value is a URL with a password, before its host or among its options.

    >>> [has_password(url) for url in ("redis://:pw@h:1/0", "kafka://h:1/p?sasl.password=x", "redis://h:1/0?prefix=p")]
    [True, True, False]
    """
    if "://" not in value:
        return False
    try:
        parts = urlsplit(value)
    except ValueError:  # a bracket that isn't closed
        return "@" in value
    options = {name.replace(".", "_").replace("-", "_") for name, text in parse_qsl(parts.query) if text}
    return bool(parts.password) or any(is_secret(name) for name in options)
