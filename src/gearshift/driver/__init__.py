"""All that a backend author imports: the contract and its values, which list the names.

Beside them: the hook in ``plugin``, parts of settings in ``settings``.
"""

from gearshift.driver.contract import *  # noqa: F403  # its __all__ is the one list
from gearshift.driver.values import *  # noqa: F403
