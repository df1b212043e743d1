"""The site: ``make docs`` builds it from these pages and from the docstrings."""

from __future__ import annotations

import sys
from pathlib import Path

from gearshift import __version__

sys.path.insert(0, str(Path(__file__).parent / "_site"))

project = "Gearshift"
author = "The Gearshift authors"
release = __version__
html_title = f"Gearshift {release}"

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx_copybutton",
    "accessible",
    "generated",
]
exclude_patterns = ["changelog.d", "examples", "_site", "README.md"]

# Pages are read on the forge too, so their links are plain Markdown.
myst_heading_anchors = 3
myst_links_external_new_tab = False
suppress_warnings = ["myst.header"]  # a page may begin where another ends: changes, decisions

# A name of ours that has no entry fails the build; other libraries' are not looked up, offline.
nitpicky = True
nitpick_ignore_regex = [
    (r"py:.*", r"(?!gearshift\b).*"),
    (r"py:class", r"gearshift\..*\.[FT]"),  # type variables
]

autodoc_default_options = {
    "members": True,
    "member-order": "bysource",
    "exclude-members": "__init__, __new__",  # most objects are made by others
}
autodoc_class_signature = "separated"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 88

html_theme = "furo"
html_static_path = ["_site/static"]
html_css_files = ["site.css"]
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False
copybutton_prompt_text = "$ "
smartquotes = False  # quotes in text are TOML's
