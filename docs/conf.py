"""How Sphinx builds the documentation: ``sphinx-build -W docs docs/_build`` writes it as HTML."""

from importlib import metadata

project = "spcy"
author = "the spcy developers"
release = metadata.version("spcy")

extensions = [
    "myst_parser",
    "numpydoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx.ext.mathjax",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "tutorial/*.rst", "tutorial/*.py", "howto/*.rst", "howto/*.py"]
intersphinx_mapping = {}

html_theme, html_title = "pydata_sphinx_theme", "spcy"
html_theme_options = {
    "header_links_before_dropdown": 6,
    "secondary_sidebar_items": ["page-toc"],
    "show_prev_next": False,
}
html_show_sourcelink = False
html_sidebars = {"*": []}  # pages that have none below them would say "Section Navigation" over nothing
html_static_path, html_css_files = ["_static"], ["spcy.css"]

myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "none"  # the docstrings say types, with shapes
autodoc_default_options = {"members": True}
numpydoc_show_class_members = False

sphinx_gallery_conf = {
    "examples_dirs": ["tutorial", "howto"],
    "gallery_dirs": ["_gallery", "_howto"],
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "download_all_examples": False,
    "remove_config_comments": True,
    "min_reported_time": 1e9,
    "show_memory": False,
    "show_signature": False,
    "abort_on_example_error": True,
}
suppress_warnings = ["ref.python"]  # names such as coords, that several engines' tensors have
