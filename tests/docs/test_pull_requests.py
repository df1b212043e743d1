"""The workflow that the guide shows does what it says: its own commands are run."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "pull-requests.md"

MAIN = """\
profile = "rabbit"
[profiles.rabbit]
backend = "rabbitmq"
[profiles.kafka]
backend = "kafka"
bootstrap_servers = ["localhost:9092"]
[channels.orders]
"""


def _steps() -> list[str]:
    """The workflow's commands, but for what installs it."""
    (workflow,) = re.findall(r"^```yaml\n(.*?)^```", GUIDE.read_text(), re.M | re.S)
    steps = re.findall(r"^ *- run: (.*)$", workflow, re.M)
    assert steps[0].startswith("pip install")
    return steps[1:]


@pytest.mark.parametrize(
    ("requires", "exit_code", "gravest"), [("", 0, "warning"), ("redelivered=hint", 4, "error")]
)
def test_the_workflow_annotates_a_switch(
    tmp_path: Path, requires: str, exit_code: int, gravest: str
) -> None:
    """In a clone with a changed profile; it fails where the channel requires what would be lost."""
    main, clone = tmp_path / "main", tmp_path / "clone"
    settings = MAIN + (f'requires = ["{requires}"]\n' if requires else "")
    main.mkdir()
    (main / "gearshift.toml").write_text(settings)
    who = ["-c", "user.name=x", "-c", "user.email=x@localhost"]
    for command in (
        ["git", "init", "-q", "-b", "main", str(main)],
        ["git", "-C", str(main), "add", "."],
        ["git", "-C", str(main), *who, "commit", "-q", "-m", "main"],
        ["git", "clone", "-q", str(main), str(clone)],
    ):
        subprocess.run(command, check=True, timeout=60)
    (clone / "gearshift.toml").write_text(settings.replace('"rabbit"', '"kafka"', 1))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    done = subprocess.run(
        ["bash", "-eo", "pipefail", "-c", "\n".join(_steps())],
        cwd=clone, env=os.environ | {"PATH": path, "GITHUB_BASE_REF": "main"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == exit_code, done.stderr
    assert done.stdout.startswith(f"::{gravest} file=gearshift.toml,line=1,")
