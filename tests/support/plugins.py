"""Plugins of a distribution that is installed for one test."""

from __future__ import annotations

from pathlib import Path


def install_plugin(folder: Path, code: str, name: str = "acme") -> None:
    """Install ``code`` as module NAME_plugin, whose ``Plugin`` is an entry point, in ``folder``."""
    (folder / f"{name}_plugin.py").write_text(code)
    info = folder / f"{name}_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[gearshift.plugins]\n{name} = {name}_plugin:Plugin\n")
