"""Turning what drivers raise into Gearshift's errors: wrapped once, here, with the cause kept."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from gearshift.driver import Backend
from gearshift.errors import BackendFailure, GearshiftError

__all__ = ["ErrorTranslator"]


@dataclass(frozen=True, slots=True)
class ErrorTranslator:
    """Translates errors of one backend's drivers for one channel (None: for no channel)."""

    backend: Backend
    name: str
    channel: str | None = None

    def translate(self, error: Exception) -> GearshiftError:
        """Our error for ``error``, which becomes its ``__cause__``; any thread, never raises."""
        if isinstance(error, GearshiftError):
            return error.located(backend=self.name, channel=self.channel)
        ours = self.backend.classify(error)
        if ours is None:
            ours = BackendFailure(
                f"{type(error).__name__}: {error}",
                hint="this is a gap in the backend's driver: please report it",
            )
        ours.__cause__ = error
        return ours.located(backend=self.name, channel=self.channel)

    @contextmanager
    def raised(self) -> Iterator[None]:
        """Around driver calls: whatever they raise leaves as a GearshiftError."""
        try:
            yield
        except GearshiftError as error:
            self.translate(error)
            raise
        except Exception as error:
            raise self.translate(error) from error
