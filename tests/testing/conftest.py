"""The fixture that users have."""

from gearshift.testing.fixtures import harness as harness
