"""The report of a comparison: one HTML file that needs nothing else, drawn from a ledger.

``charts`` says how each kind of chart is drawn, ``page`` puts the file together from the template,
the style and the script beside it. ``vendor`` holds Vega and Vega-Lite as they are published.
"""

from gearshift.compare.report.page import extract, render

__all__ = ["extract", "render"]
