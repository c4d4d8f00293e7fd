"""A module in a process of its own: what it answers, how its end is told, and that it ends with who began it."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from opd_diag.servers import child as child_module
from opd_diag.servers.child import Child, NoAnswer

ECHO = """
import json, sys
for line in sys.stdin:
    print(json.dumps({"back": json.loads(line)}), flush=True)
"""


@pytest.fixture
def begun(tmp_path, monkeypatch):
    """(source) → a process that runs it; ended with the test."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    children = []

    def begin(source, **variables):
        (tmp_path / "answers_lines.py").write_text(source)
        children.append(Child("answers_lines", variables))
        return children[-1]

    yield begin
    for one in children:
        one.close(at_once=True)


def is_there(pid):
    """Whether a process runs; who has ended and is not waited for by anyone does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def ending(child):
    with pytest.raises(NoAnswer) as caught:
        child.answer(100)
    return str(caught.value)


def test_lines_are_answered_until_it_is_closed(begun):
    child = begun(ECHO)
    for sent in ({"a": 1}, {"b": "ä\n"}):
        child.send(sent)
        assert child.answer(100) == {"back": sent}
    child.close()
    assert child._process.returncode == 0


def test_it_has_the_variables_that_differ(begun):
    child = begun("import os; print('{\"said\": \"' + os.environ['ONE'] + os.environ['PYTHONPATH'] + '\"}')", ONE="1")
    assert child.answer(1000) == {"said": "1" + os.environ["PYTHONPATH"]}


def test_files_in_the_working_directory_are_no_modules(begun, tmp_path, monkeypatch):
    there = tmp_path / "there"
    there.mkdir()
    (there / "json.py").write_text("raise SystemExit(7)")
    monkeypatch.chdir(there)
    child = begun(ECHO)
    child.send({"a": 1})
    assert child.answer(100) == {"back": {"a": 1}}


@pytest.mark.parametrize(
    ("source", "how"),
    [
        ("raise SystemExit(3)", "ended with exit code 3"),
        ("raise ValueError('No\\x1b room.')", "ended with exit code 1; it said last: ValueError: No\\x1b room"),
        ("import os; os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        ("print('Loading', flush=True)", "answered b'Loading\\n' in place of a line of JSON"),
        ("print('[1]', flush=True)", "answered b'[1]\\n' in place of a line of JSON"),
        ("print('[' * 90, flush=True)", f"answered b'{'[' * 40}' in place of a line of JSON"),
    ],
)
def test_why_there_is_no_answer(begun, source, how):
    child = begun(source)
    child.send({"a": 1})
    assert ending(child) == how


def test_a_line_that_is_too_long_is_none(begun):
    child = begun("print('{\"a\": \"' + 'b' * 200 + '\"}', flush=True)")
    assert ending(child) == 'answered b\'{"a": "' + "b" * 33 + "' in place of a line of JSON"


def test_what_it_began_ends_with_it(begun):
    child = begun(
        "import subprocess, sys\n"
        "on = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        "print('{\"pid\": %d}' % on.pid, flush=True)\n"
        "import time; time.sleep(600)"
    )
    pid = child.answer(100)["pid"]
    child.close(at_once=True)
    assert child._process.returncode == -signal.SIGKILL
    end = time.monotonic() + 10
    while is_there(pid):
        assert time.monotonic() < end
        time.sleep(0.01)


def test_one_that_does_not_leave_is_ended(begun, monkeypatch):
    monkeypatch.setattr(child_module, "LEAVES_WITHIN", 0.05)
    child = begun("print('{}', flush=True)\nimport time; time.sleep(600)")
    child.answer(100)
    child.close()
    assert child._process.returncode == -signal.SIGKILL


def test_ctrl_c_while_it_has_time_to_leave_ends_it(begun):
    child = begun("print('{}', flush=True)\nimport time; time.sleep(600)")
    child.answer(100)
    main = threading.get_ident()
    ctrl_c = threading.Timer(0.3, signal.pthread_kill, (main, signal.SIGINT))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # tests in the background ignore it
    try:
        ctrl_c.start()
        with pytest.raises(KeyboardInterrupt):
            child.close()
        ctrl_c.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert child._process.returncode == -signal.SIGKILL
    assert not is_there(child._process.pid)


def test_of_one_that_ends_its_output_alone_it_is_told(begun, monkeypatch):
    monkeypatch.setattr(child_module, "LEAVES_WITHIN", 0.05)
    child = begun("import os, time; os.close(1); time.sleep(600)")
    assert ending(child) == "answers no more"
