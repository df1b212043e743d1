"""The report of a comparison: one HTML file that needs nothing else, drawn from a ledger.

``charts`` says how each kind of chart looks, ``drawing`` makes SVG of it, ``page`` puts the file
together from the template and the style beside it. There is no script in it.
"""

from gearshift.compare.report.page import extract, render

__all__ = ["extract", "render"]
