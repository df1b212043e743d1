"""Backends are found in metadata, imported by name alone, and refused in words.

The distributions are real: a ``.dist-info`` folder and a module on ``sys.path``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gearshift import plugins
from gearshift.driver import DRIVER_API, BackendPlugin
from gearshift.errors import (
    BackendNotFound,
    PluginConflict,
    PluginError,
    PluginImportError,
    PluginIncompatible,
)
from gearshift.message import Semantics

MODULE = """
import gearshift_imports
from gearshift.capabilities import Capabilities, Known, Lease, Members, Order, Prefetch, Durability
from gearshift.driver import BackendPlugin
from gearshift.driver.plugin import hookimpl
from gearshift.message import Semantics

gearshift_imports.names.append(__name__)
QUEUE = Capabilities(
    redelivery=True, native_retry=True, native_delay=True, dead_letter=True, fan_out=True,
    replay=False, seek=False, purge=True, ephemeral_group=True, unroutable_detected=True,
    tombstone=False, depth=True, durable_group=True, order=Order.NONE, redelivered=Known.EXACT,
    attempt=Known.EXACT, prefetch=Prefetch.STRICT, durability=Durability.PROCESS, lease=Lease.HELD,
    members=Members.ANY, max_message_bytes=1,
)

@hookimpl
def gearshift_backend():
    return BackendPlugin(
        name="{name}", driver_api={api}, summary="A test", settings=dict, channel_settings=dict,
        capabilities={{Semantics.QUEUE: QUEUE}},
        default_semantics=Semantics.{default_semantics}, connect=print,
    )
"""

HOOK = "from gearshift.driver.plugin import hookimpl\n@hookimpl\ndef gearshift_backend"

Install = Callable[..., str]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on ``sys.path``; what is imported from it is forgotten afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "gearshift_imports.py").write_text("names = []\n")
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


@pytest.fixture
def install(site: Path) -> Install:
    """Install a distribution with one backend; returns the name of its module."""

    def make(
        name: str,
        *,
        distribution: str | None = None,
        code: str | None = None,
        api: int = DRIVER_API,
        calls_itself: str | None = None,
        default_semantics: str = "QUEUE",
        module: str | None = None,
    ) -> str:
        distribution = distribution or f"acme-{name}"
        module = module or distribution.replace("-", "_")
        info = site / f"{distribution.replace('-', '_')}-1.2.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(
            f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.2\n"
        )
        (info / "entry_points.txt").write_text(f"[gearshift.backends]\n{name} = {module}\n")
        default = MODULE.format(
            name=calls_itself or name, api=api, default_semantics=default_semantics
        )
        (site / f"{module}.py").write_text(code if code is not None else default)
        return module

    return make


def imported() -> list[str]:
    import gearshift_imports  # type: ignore[import-not-found]

    return list(gearshift_imports.names)


def test_listing_reads_metadata_and_imports_nothing(install: Install) -> None:
    module = install("nats")
    entry = next(entry for entry in plugins.available() if entry.name == "nats")
    assert entry == plugins.PluginEntry("nats", "acme-nats", "1.2", module)
    assert str(entry) == "acme-nats 1.2"
    assert module not in sys.modules


def test_built_in_backends_are_registered_like_any_other() -> None:
    modules = {entry.name: entry.module for entry in plugins.available()}
    assert modules["memory"] == "gearshift.embedded.memory"
    assert modules["sqlite"] == "gearshift.embedded.sqlite"


def test_loading_imports_only_the_one_that_was_named(install: Install) -> None:
    module = install("nats")
    install("pulsar")
    plugin = plugins.load("nats")
    assert isinstance(plugin, BackendPlugin)
    assert (plugin.name, plugin.summary, plugin.default_semantics) == (
        "nats",
        "A test",
        Semantics.QUEUE,
    )
    assert imported() == [module]


def test_loading_twice_imports_once_and_gives_the_same(install: Install) -> None:
    module = install("nats")
    assert plugins.load("nats").name == plugins.load("nats").name
    assert imported() == [module]


def test_a_misspelt_name_is_suggested_and_no_install_command_given(install: Install) -> None:
    install("nats")
    with pytest.raises(BackendNotFound) as caught:
        plugins.load("natts")
    assert caught.value.hint == "did you mean 'nats'?"
    assert "memory" in str(caught.value)
    assert "sqlite" in str(caught.value)


def test_a_name_that_is_not_installed_comes_with_the_install_command() -> None:
    with pytest.raises(BackendNotFound) as caught:
        plugins.load("pulsar")
    assert caught.value.hint == "pip install gearshift-pulsar"
    assert "'pulsar' is not installed" in str(caught.value)


@pytest.mark.parametrize("name", ["", "a; rm -rf x", "$(x)", "a b", "http://x", "a\n", "ä"])
def test_a_name_that_a_shell_would_read_otherwise_is_not_put_into_a_command(name: str) -> None:
    with pytest.raises(BackendNotFound) as caught:
        plugins.load(name)
    assert "pip install" not in str(caught.value)


def test_two_distributions_of_one_name_are_both_named(install: Install) -> None:
    install("nats")
    install("nats", distribution="other-nats")
    with pytest.raises(PluginConflict) as caught:
        plugins.load("nats")
    assert "acme-nats 1.2 and by other-nats 1.2" in str(caught.value)
    assert imported() == []


@pytest.mark.parametrize(
    ("code", "cause", "says"),
    [
        ("import no_such_client_library", ModuleNotFoundError, "no_such_client_library"),
        ("raise RuntimeError('needs a licence')", RuntimeError, "needs a licence"),
        ("def broken(:", SyntaxError, "SyntaxError"),
        ("raise SystemExit('bye')", SystemExit, "bye"),
    ],
)
def test_a_plugin_that_does_not_import_says_why_and_others_still_load(
    install: Install, code: str, cause: type[BaseException], says: str
) -> None:
    install("broken", code=code)
    install("nats")
    with pytest.raises(PluginImportError, match=says) as caught:
        plugins.load("broken")
    assert isinstance(caught.value.__cause__, cause)
    assert "acme-broken 1.2" in str(caught.value)
    assert plugins.load("nats").name == "nats"


def test_an_entry_point_that_is_no_module_is_an_import_error(install: Install, site: Path) -> None:
    install("odd", module="acme_odd")
    (site / "acme_odd-1.2.dist-info" / "entry_points.txt").write_text(
        "[gearshift.backends]\nodd = acme_odd:nothing\n"
    )
    with pytest.raises(PluginImportError, match="nothing"):
        plugins.load("odd")


@pytest.mark.parametrize("api", [DRIVER_API + 1, DRIVER_API - 1])
def test_another_driver_api_is_refused_with_both_versions(install: Install, api: int) -> None:
    install("old", api=api)
    with pytest.raises(PluginIncompatible) as caught:
        plugins.load("old")
    assert f"driver API {api}" in str(caught.value)
    assert f"this Gearshift has {DRIVER_API}" in str(caught.value)


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("", "no hook gearshift_backend"),
        ("def gearshift_backend(): pass", "no hook gearshift_backend"),
        (HOOK + "(): return 5", "returned int"),
        (HOOK + "(): 1 / 0", "ZeroDivisionError"),
        (HOOK + "(bus): 0", "bus"),
    ],
)
def test_a_module_without_a_proper_hook_is_refused(install: Install, code: str, says: str) -> None:
    install("odd", code=code)
    with pytest.raises(PluginError, match=says):
        plugins.load("odd")


def test_a_plugin_that_calls_itself_otherwise_is_refused(install: Install) -> None:
    install("nats", calls_itself="valkey")
    with pytest.raises(PluginError, match="calls itself 'valkey'"):
        plugins.load("nats")


def test_default_semantics_without_capabilities_is_refused(install: Install) -> None:
    install("nats", default_semantics="STREAM")
    with pytest.raises(PluginError, match="no capabilities for its default semantics"):
        plugins.load("nats")


def test_describing_loads_what_it_can_and_says_what_is_wrong_with_the_rest(
    install: Install,
) -> None:
    install("nats")
    install("broken", code="raise RuntimeError('needs a licence')")
    install("twice")
    install("twice", distribution="other-twice")
    found = {status.distribution: status for status in plugins.describe()}
    nats, broken = found["acme-nats"], found["acme-broken"]
    assert nats.error is None
    assert nats.plugin is not None
    assert set(nats.plugin.capabilities) == {Semantics.QUEUE}
    assert broken.plugin is None
    assert isinstance(broken.error, PluginImportError)
    assert (broken.name, broken.version) == ("broken", "1.2")
    assert isinstance(found["acme-twice"].error, PluginConflict)
    assert isinstance(found["other-twice"].error, PluginConflict)
