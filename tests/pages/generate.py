"""Write the parts of pages that are made from code, and docs/openapi.json: `python -m tests.pages.generate`.

A part stands between two marks. A test holds that each page has what its part would be now.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from schemas.event_page import bytes_part, fields_part, topics_part
from tests.api import openapi_file
from tests.pages.commands_page import commands_part
from tests.pages.views_page import types_part, views_part
from tests.places import DOCS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    Parts = Mapping[str, Callable[[], str]]

PAGES: Mapping[Path, Parts] = {
    DOCS / "events.md": {"topics": topics_part, "bytes": bytes_part, "fields": fields_part},
    DOCS / "views.md": {"views": views_part, "types": types_part},
    DOCS / "commands.md": {"commands": commands_part},
}
"""Each page with the names of its parts, and what makes them."""


def generated(page: str, parts: Parts) -> str:
    """Return the text of a page with each of its parts made anew.

    Raises:
        ValueError: the page lacks the marks of a part.
    """
    for name, make in parts.items():
        begin, end = f"<!-- {name}: made by `python -m tests.pages.generate` -->\n", f"<!-- end of {name} -->\n"
        before, mark, rest = page.partition(begin)
        _, end_mark, after = rest.partition(end)
        if not (mark and end_mark):
            raise ValueError(f"the page has no part between {begin!r} and {end!r}")
        page = f"{before}{begin}\n{make()}{end}{after}"
    return page


if __name__ == "__main__":
    for path, parts in PAGES.items():
        path.write_text(generated(path.read_text("utf-8"), parts), "utf-8")
    openapi_file.FILE.write_text(openapi_file.openapi_text(), "utf-8")
