"""What a shell gives the process: a umask, a limit of open files, an encoding, and how warnings are taken."""

from __future__ import annotations

import codecs
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modelstream.commands.process import _PLAIN, allow_files, plainly
from modelstream.errors import ConfigurationError

ROOT = Path(__file__).parents[2]
ANY = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("soft", "hard", "raised_to"),
    [(256, 4096, 1024), (40, 200, 200), (8, ANY, 1024), (1024, 4096, None), (ANY, ANY, None), (4096, 4096, None)],
)
def test_the_limit_of_open_files_is_raised_as_far_as_it_may(
    soft: int, hard: int, raised_to: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = []
    monkeypatch.setattr(resource, "getrlimit", lambda which: (soft, hard))
    monkeypatch.setattr(resource, "setrlimit", lambda which, limits: given.append(limits))
    allow_files()
    assert given == ([] if raised_to is None else [(raised_to, hard)])


@pytest.mark.parametrize("hard", [8, 40, 63])
def test_too_few_open_files_are_refused_with_a_remedy(hard: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda which: (hard, hard))
    with pytest.raises(ConfigurationError, match=f"only {hard} files open") as raised:
        allow_files()
    assert "ulimit -n" in raised.value.remedy


@given(st.text(st.characters(codec="utf-8") | st.sampled_from('→…’"')))
def test_text_that_a_terminal_can_not_show_is_the_same_json_in_plain_characters(text: str) -> None:
    codecs.register_error("plain", plainly)
    quoted = json.dumps(text, ensure_ascii=False)
    written = quoted.encode("ascii", "plain").decode("ascii")
    assert json.loads(written) == text.translate({ord(one): plain for one, plain in _PLAIN.items()})


def test_a_hostile_shell_gets_words_and_no_traceback(tmp_path: Path) -> None:
    command = f"ulimit -n 30; exec {sys.executable} pipeline.py run --data {tmp_path / 'data'}"
    environment = {"PYTHONIOENCODING": "ascii", "PYTHONWARNINGS": "error", "HOME": "/dev/null", "PATH": "/usr/bin:/bin"}
    ended = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, env=environment, check=False)
    assert ended.returncode == 1
    lines = ended.stderr.decode("ascii").splitlines()
    assert lines == [
        "error: this shell lets a process have only 30 files open; the pipeline needs 64",
        "-> raise the limit, such as with `ulimit -n 1024` in a new shell, or in the settings of the container",
    ]
    assert not (tmp_path / "data").exists()
