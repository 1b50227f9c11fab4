"""The site: `sphinx-build -W docs docs/_build`. Pages of members, tasks and commands are made from the code."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from pages import write_pages

project = "Transformer Family"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
html_theme = "alabaster"
html_theme_options = {
    "description": "One attention/block core, many members",
    "fixed_sidebar": True,
    "page_width": "1080px",
}
exclude_patterns = ["_build", "notes"]
autodoc_typehints = "none"
"""Annotations stand in the signatures."""
autodoc_member_order = "bysource"
napoleon_use_rtype = False
write_pages(Path(__file__).parent / "made")
