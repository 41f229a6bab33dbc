"""Sphinx: the Markdown pages of this folder as HTML (make docs)."""

project = "smtpd_core"
author = "the authors of smtpd_core"
extensions = ["myst_parser"]
source_suffix = {".md": "markdown"}
master_doc = "index"
exclude_patterns = ["_build"]
myst_heading_anchors = 3
html_theme = "alabaster"
