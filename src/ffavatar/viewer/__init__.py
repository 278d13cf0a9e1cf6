"""The browser viewer's bundle, built from ``viewer/`` and shipped as package data."""

from __future__ import annotations

from pathlib import Path

FOLDER = Path(__file__).resolve().parent
"""What a server hands out: ``index.html``, ``page.css``, ``ff-avatar.js``."""

BUNDLE = FOLDER / "ff-avatar.js"
"""One ES module without imports; loading it defines the element ``<ff-avatar>``."""

PAGE_STYLE = FOLDER / "page.css"
"""The style of a page that shows nothing but an avatar."""
