"""Proving handlers: what a broker may do to them is done to them, and the smallest story is told.

::

    from gearshift.testing.prove import prove

    def test_bill_stands_it() -> None:
        prove(app, profile="kafka", state=balances, reset=clear, examples=orders).check()

Needs ``pip install 'gearshift[prove]'``; no broker and no password.
"""

from gearshift.extras import importing

with importing("prove"):
    from gearshift.testing.prove.running import prove, prove_target
    from gearshift.testing.prove.story import Proof, Story, Verdict
    from gearshift.testing.prove.workload import Example

__all__ = ["Example", "Proof", "Story", "Verdict", "prove", "prove_target"]
