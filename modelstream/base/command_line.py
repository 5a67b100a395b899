"""How a command line is printed, so that it works in the shell of the person who reads it.

Whoever has activated the environment types `python pipeline.py`; after `make run` nothing is activated, and it is
`.venv/bin/python pipeline.py`. Hints call `pipeline`. Errors and the help are written as in the docs, and go through
`as_typed_here` when they are printed. Both name the data folder that the command was given, where it matters.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import sys
from functools import cache
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[2]
"""The folder of this repository, with `pipeline.py` and the Makefile."""
WRITTEN = "python pipeline.py"
"""How command lines stand in docstrings, errors and docs."""
_OF_A_FOLDER = re.compile(
    r"(?<=pipeline\.py )(?:run|serve|status|peek|table|explain|replay|train|drift)\b[^`\n]*?(?=[.,]?(?:`|\n|; | → |$))"
)
"""The words of a command that has the option --data, to the end of its line of code or of the sentence."""
_WRITTEN = re.compile(rf"(?<![\w/]){re.escape(WRITTEN)}")
"""Not the end of a command line that is as it is typed already, such as `.venv/bin/python pipeline.py`."""
_MAKE = re.compile(r"\bmake (env|kfp|lab|run|s3)\b")


_option = ""
"""` --data FOLDER` if this command works on another folder than `data`."""


def work_on(data: Path) -> Path:
    """Let the hints of this process name a data folder, as it was given on the command line; return it.

    >>> _ = work_on(Path("my data"))
    >>> pipeline("status").partition("python ")[2], as_typed_here("`python pipeline.py peek x`.").partition(".py ")[2]
    ("pipeline.py status --data 'my data'", "peek x --data 'my data'`.")
    >>> _ = work_on(Path("data"))
    >>> pipeline("status").partition("python ")[2]
    'pipeline.py status'
    """
    global _option
    given = short(str(data), _here())
    _option = "" if given == "data" else f" --data {shlex.quote(given)}"
    return data


def pipeline(*words: object) -> str:
    """Return the command line that runs `pipeline.py` with some arguments; text with blanks is several of them.

    >>> pipeline("models promote", 2).partition("python ")[2]
    'pipeline.py models promote 2'
    """
    return _with_folder(" ".join([python(), _script(), *map(str, words)]))


def python() -> str:
    """Return what to type for the Python that runs this."""
    return _typed(sys.executable, os.environ.get("PATH", ""), _here())


def as_typed_here(text: str) -> str:
    """Return a text of ours, such as an error's, with its command lines as they are typed here."""
    typed = f"{python()} {_script()}"
    text = _WRITTEN.sub(lambda _: typed, _with_folder(text))
    if _here() != str(FOLDER):
        text = _MAKE.sub(rf"make -C {shlex.quote(str(FOLDER))} \1", text)
    return text


def _with_folder(text: str) -> str:
    """Return a text in which the command lines name the data folder, if that is another than `data`."""
    return _OF_A_FOLDER.sub(lambda found: found[0] + ("" if " --data" in found[0] else _option), text)


@cache
def _typed(executable: str, path: str, here: str) -> str:
    """Return `python` if the shell finds this very Python by that name, and otherwise its path."""
    found = shutil.which("python", path=path)
    if found and os.path.realpath(Path(found).parent) == os.path.realpath(Path(executable).parent):
        return "python"
    return shlex.quote(short(executable, here))


def _script() -> str:
    """Return the path of `pipeline.py` as it was typed, or from here."""
    typed = sys.argv[0]
    if Path(typed).name == "pipeline.py":
        return shlex.quote(typed)
    return shlex.quote(short(str(FOLDER / "pipeline.py"), _here()))


def _here() -> str:
    """Return the current folder; nothing if it was deleted."""
    try:
        return str(Path.cwd())
    except OSError:
        return ""


def short(path: str, here: str) -> str:
    """Return a path as a person would type it in the folder `here`: relative if it is below.

    >>> short("/home/me/project/.venv/bin/python", "/home/me/project"), short("/usr/bin/python3", "/home/me")
    ('.venv/bin/python', '/usr/bin/python3')
    """
    return os.path.relpath(path, here) if Path(path).is_relative_to(here) else path
