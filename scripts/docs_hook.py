"""Adds the pages of the project's root to the documentation site. MkDocs loads this file (mkdocs.yml).

README, CONTRIBUTING and others are where GitHub looks for them, outside of `docs`. Links between them and
the pages of `docs` are relative to each file, so that they work on GitHub. On the site they point to the
pages that are made here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePosixPath

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
ROOT_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
"""The site's page of each file in the root."""

_LINK = re.compile(r"\[(?P<text>[^\]]*)\]\((?P<target>[^)#:\s]+)(?P<anchor>#[^)\s]*)?\)")
"""A link of Markdown to a file; links to other sites have a colon."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add each page of the root."""
    for name, page in ROOT_PAGES.items():
        text = (ROOT / name).read_text(encoding="utf-8")
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Return a page whose links to files of the project lead to the site's pages."""
    folder = _source_folder(page.file.src_uri)
    return _LINK.sub(lambda link: _site_link(link, folder), markdown)


def _source_folder(page: str) -> PurePosixPath:
    """Return the folder of a page's source, from the project's root."""
    if page in ROOT_PAGES.values():
        return PurePosixPath()
    return PurePosixPath("docs", page).parent


def _site_link(link: re.Match[str], folder: PurePosixPath) -> str:
    """Return a link as the site needs it; a file that is no page of the site becomes plain text.

    A target that does not exist is left as it is, for MkDocs to report.
    """
    target = PurePosixPath(os.path.normpath(folder / link["target"]))
    if not (ROOT / target).exists():
        return link[0]
    anchor = link["anchor"] or ""
    site_folder = os.path.relpath(folder, "docs") if folder.parts[:1] == ("docs",) else "."
    if str(target) in ROOT_PAGES:
        page = ROOT_PAGES[str(target)]
    elif target.parts[0] == "docs":
        page = str(target.relative_to("docs"))
    else:
        return link["text"]
    return f"[{link['text']}]({os.path.relpath(page, site_folder)}{anchor})"
