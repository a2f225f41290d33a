"""Write programmes in tests as the YAML that they are, with `$name` where a value is put in."""

from __future__ import annotations

from string import Template
from typing import TYPE_CHECKING

from engine.programme.file.load import load_programme

if TYPE_CHECKING:
    from engine.programme.model import Programme


def written(text: str, /, **values: object) -> str:
    """Return a text with each `$name` replaced by the value of that name; braces stay braces."""
    return Template(text).substitute(values)


def head(timezone: str = "UTC", currency: str = "USD") -> str:
    """Return the four lines with which a programme begins."""
    return f"schema: guerdon/1\nprogramme: p\ntimezone: {timezone}\ncurrency: {currency}\n"


def rules(*each: str) -> str:
    """Return the section of rules, each given as the text of a mapping."""
    return "rules:\n" + "".join(f"- {rule}\n" for rule in each)


def loaded(text: str) -> Programme:
    """Return the checked programme of a whole text, which must be one that this release judges."""
    found = load_programme(text, "p.yaml")
    assert found.programme is not None, "\n".join(map(str, found.problems))
    assert found.not_judged == ()
    return found.programme
