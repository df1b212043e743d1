"""Settings: ``gearshift.toml`` and the environment, merged, checked and typed.

What wins, from strongest to weakest: an argument, the environment, the file, the default.
``GEARSHIFT_CONFIG`` names the file and ``GEARSHIFT_PROFILE`` the profile; ``GEARSHIFT_PROFILES__*``
and ``GEARSHIFT_CHANNELS__*`` set single values (see ``overrides``), and ``GEARSHIFT_REHEARSAL``
makes it a rehearsal (see ``gearshift.rehearsal``). ``${VAR}`` in the selected profile is replaced
from the environment (see ``expansion``). Nothing else in the library reads it.

One file, one job: ``document`` (the file), ``overrides``, ``expansion``, ``conversion`` (to types),
``errors`` (msgspec's errors in our words), ``masking``, ``channels`` (a channel's settings),
``profiles`` (which one is selected), ``model`` (the result), ``loading`` (puts them together),
``description`` (what each one does).
"""

from gearshift.config.channels import ChannelSettings
from gearshift.config.expansion import Unset
from gearshift.config.loading import load, rehearsal_file, with_channels, with_profile
from gearshift.config.model import Config, Profile, Row
from gearshift.config.overrides import CONFIG, PROFILE, REHEARSAL

__all__ = [
    "CONFIG",
    "PROFILE",
    "REHEARSAL",
    "ChannelSettings",
    "Config",
    "Profile",
    "Row",
    "Unset",
    "load",
    "rehearsal_file",
    "with_channels",
    "with_profile",
]
