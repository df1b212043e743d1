"""ARCHITECTURE.md and the list of decisions show what is there; modules take what is offered."""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path

TOP = Path(__file__).parents[2]
SOURCE = TOP / "src" / "gearshift"
#: Folders of which each file is shown.
OPEN = ("bus", "driver", "operations", "worker", "_core", "_core/consuming", "_core/publishing")


def test_the_tree_is_that_of_the_folders() -> None:
    """Every module of the top floor and of the folders that are opened, and no other."""
    text = (TOP / "ARCHITECTURE.md").read_text(encoding="utf-8")
    (tree,) = re.findall(r"^```\nsrc/gearshift/\n(.*?)^```", text, re.M | re.S)
    shown, folders = set(), {0: ""}
    for line in tree.splitlines():
        indent = len(line) - len(line.lstrip())
        if indent == 0:
            break  # beside src
        for name in re.findall(r"[\w/]+\.py|^ *\w+/", line):
            folder = folders[max(deeper for deeper in folders if deeper < indent)]
            shown.add(folder + name.strip())
            if name.endswith("/"):
                folders = {n: f for n, f in folders.items() if n < indent}
                folders[indent] = folder + name.strip()
    there = set()
    for folder in (SOURCE, *(SOURCE / name for name in OPEN)):
        for one in folder.iterdir():
            name = one.relative_to(SOURCE).as_posix()
            if one.is_dir() and (one / "__init__.py").exists():
                there.add(f"{name}/")
            elif one.suffix == ".py" and one.stem != "__init__":
                there.add(name)
    assert shown == there


def test_what_a_newcomer_looks_for_is_where_it_is_said_to_be() -> None:
    """Each answer is the path of a module or a folder."""
    section = (TOP / "ARCHITECTURE.md").read_text(encoding="utf-8")
    section = section.partition("## Where is it?")[2].partition("\n## ")[0]
    answers = re.findall(r"`([\w/.]+)`", section)
    assert len(answers) >= 10
    assert [answer for answer in answers if not (SOURCE / answer).exists()] == []


def test_every_decision_is_listed_with_its_title_and_date() -> None:
    """In the order of their numbers."""
    folder = TOP / "docs" / "design"
    rows = re.findall(
        r"^\| \[(.*?)\]\((.*?)\) \| .+ \| (\S+) \|$", (folder / "README.md").read_text(), re.M
    )
    notes = []
    for path in sorted(folder.glob("[0-9]*.md")):
        title, _, status = path.read_text(encoding="utf-8").split("\n")[:3]
        since = re.match(r"(?:Accepted|Replaced by \S+) (\d{4}-\d\d-\d\d)[.;]", status)
        assert since, f"{path.name}: {status}"
        notes.append((title.removeprefix("# "), path.name, since[1]))
    assert rows == notes


def test_what_other_modules_import_is_offered() -> None:
    """Each module says in ``__all__`` what is for others, all of it."""
    folders = [TOP / "src", *TOP.glob("backends/*/src")]
    trees = {
        ".".join(path.relative_to(folder).with_suffix("").parts).removesuffix(".__init__"): (
            ast.parse(path.read_text(encoding="utf-8"))
        )
        for folder in folders
        for path in folder.rglob("*.py")
    }
    past = [
        f"{name} takes {one.name} from {node.module}"
        for name, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module in trees
        for one in node.names
        if f"{node.module}.{one.name}" not in trees and not one.name.startswith(("__", "*"))
        if one.name not in _offered(node.module, trees)
    ]
    assert past == []


def _offered(module: str, trees: Mapping[str, ast.Module]) -> set[str]:
    """The names in its ``__all__``, and in those of the modules that it passes on whole."""
    offered: set[str] = set()
    for node in trees[module].body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            offered |= set(ast.literal_eval(node.value))
        if isinstance(node, ast.ImportFrom) and [one.name for one in node.names] == ["*"]:
            offered |= _offered(str(node.module), trees)
    return offered
