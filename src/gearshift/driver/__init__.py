"""What a backend author imports: the contract, the hook in ``plugin``, shared ``settings``."""

from gearshift.driver.contract import *  # noqa: F403  # its __all__ is the one list of these names
