"""What a test that hangs does to the run, seen from outside: pytest in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
LIMIT_S = 3.0

PLUGINS = """
import pytest
pytest_plugins = ["support.hangs", "support.lanes"]

@pytest.fixture(scope="session")
def redis():
    return "shared by the lane"
"""

HANGS = """
import ctypes, threading
import pytest

MUTEX = ctypes.create_string_buffer(128)  # zeroes are a mutex that nobody holds

def never(libc):
    libc.pthread_mutex_lock(MUTEX)
    libc.pthread_mutex_lock(MUTEX)

@pytest.fixture
def stubborn():
    yield
    threading.Event().wait()

@pytest.fixture
def tidy(tmp_path_factory):
    yield
    (tmp_path_factory.getbasetemp().parent / "tidied").touch()

def test_neighbour_before(redis): ...
def test_in_python(redis): threading.Event().wait()
def test_neighbour_after_python(redis): ...
def test_in_teardown(redis, tidy, stubborn): ...
def test_neighbour_after_teardown(redis): ...
def test_fails_and_hangs_in_teardown(redis, stubborn): assert False
def test_neighbour_after_both(redis): ...
def test_in_c(redis): never(ctypes.CDLL(None))
def test_neighbour_after_c(redis): ...
def test_in_c_that_holds_python(redis): never(ctypes.PyDLL(None))
def test_last_neighbour(redis): ...
"""

FAILED = {
    "FAILED test_hanging.py::test_in_python",
    "ERROR test_hanging.py::test_in_teardown",
    "FAILED test_hanging.py::test_fails_and_hangs_in_teardown",
    "ERROR test_hanging.py::test_fails_and_hangs_in_teardown",
    "FAILED test_hanging.py::test_in_c",
    "FAILED test_hanging.py::test_in_c_that_holds_python",
}


@pytest.mark.timeout(240)
def test_a_test_that_hangs_fails_alone(tmp_path: Path) -> None:
    """In Python, in a teardown, in C: it fails, all others of its lane pass, stacks are shown."""
    (tmp_path / "conftest.py").write_text(PLUGINS)
    (tmp_path / "test_hanging.py").write_text(HANGS)
    (tmp_path / "test_other.py").write_text("def test_one(): ...\ndef test_two(): ...\n")
    command = [
        *(sys.executable, "-m", "pytest", "-q", "-rfE", "--color=no", f"--timeout={LIMIT_S}"),
        *("-n", "2", "--dist=loadgroup", "--no-loadscope-reorder", "--basetemp=run"),
        *("-p", "no:cacheprovider"),
    ]
    ended = subprocess.run(
        command,
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": f"{TESTS}:{TESTS.parent / 'compose'}"},
        capture_output=True,
        text=True,
        timeout=200,
    )
    shown = ended.stdout + ended.stderr
    summary = [line for line in ended.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    assert all("@brokers " in line for line in summary), shown
    assert {line.split("@")[0].split(" - ")[0] for line in summary} == FAILED, shown
    assert "4 failed, 9 passed, 2 errors" in ended.stdout, shown
    assert f"not finished within {LIMIT_S:g} s" in ended.stdout
    assert "Captured stacks at the time limit" in ended.stdout
    assert ended.stderr.count("cannot be interrupted") == 1
    assert "Timeout (0:" in ended.stderr  # from C: Python could not say it
    assert ended.stderr.count("in never") == 2
    assert (tmp_path / "run" / "tidied").exists()
