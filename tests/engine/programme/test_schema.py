"""The JSON Schema: what checks is valid by it, what is misspelt is flagged, and an editor can complete from it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given, settings

from engine.programme.fields import FIELDS, LINE
from engine.programme.file.json_schema import json_schema
from engine.programme.file.load import load_programme
from engine.programme.file.problems import Code
from tests import places
from tests.conformance.cases import CASE_FILES
from tests.engine.programme.test_errors import examples
from tests.strategies.programmes import programme_texts

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = json_schema()
TYPES: dict[str, Any] = {
    "object": dict, "array": list, "string": str, "number": (int, float), "boolean": bool, "null": type(None),
}  # fmt: skip
EXAMPLES = sorted(places.EXAMPLES.glob("*/programme.yaml"))


class Editors(yaml.SafeLoader):
    """Read YAML as editors do, by its version 1.2: 17:00, 2026-01-01, on and NO are text."""


Editors.yaml_implicit_resolvers = {}
Editors.add_implicit_resolver("tag:yaml.org,2002:float", re.compile(r"-?[0-9]+(\.[0-9]+)?$"), None)
Editors.add_implicit_resolver("tag:yaml.org,2002:null", re.compile("null$"), None)


def flaws(value: Any, schema: dict[str, Any], path: str = "") -> list[str]:  # noqa: PLR0911  one answer for each shape
    """Return where `value` breaks `schema`: the part of JSON Schema that the schema uses."""
    if "$ref" in schema:
        return flaws(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], path)

    # one of several shapes, or of several values
    if "anyOf" in schema:
        tried = [flaws(value, shape, path) for shape in schema["anyOf"]]
        return [] if [] in tried else [flaw for each in tried for flaw in each]
    if "const" in schema or "enum" in schema:
        return [] if value in schema.get("enum", [schema.get("const")]) else [f"{path}: {value}"]

    # the type, then what stands in it
    types = schema.get("type", list(TYPES))
    types = [types] if isinstance(types, str) else types
    if not any(isinstance(value, TYPES[name]) for name in types):
        return [f"{path}: {value} is no {types}"]
    if isinstance(value, str) and not re.search(schema.get("pattern", ""), value):
        return [f"{path}: {value} is not {schema['pattern']}"]
    if isinstance(value, list):
        if not schema.get("minItems", 0) <= len(value) <= schema.get("maxItems", len(value)):
            return [f"{path} has {len(value)} items"]
        return [f for n, each in enumerate(value) for f in flaws(each, schema.get("items", {}), f"{path}/{n}")]
    return _object_flaws(value, schema, path) if isinstance(value, dict) else []


def _object_flaws(value: dict[Any, Any], schema: dict[str, Any], path: str) -> list[str]:
    broken = [f"{path} has no {name}" for name in schema.get("required", []) if name not in value]
    for key, each in value.items():
        name = str(key)
        patterns = [s for pattern, s in schema.get("patternProperties", {}).items() if re.search(pattern, name)]
        shape = schema.get("properties", {}).get(name, patterns[0] if patterns else None)
        rest = schema.get("additionalProperties", {})
        if shape is None and rest is False:
            broken.append(f"{path} knows no {name}")
        else:
            broken += flaws(each, rest if shape is None else shape, f"{path}/{name}")
    return broken


def read(text: str) -> Any:
    return yaml.load(text, Editors)  # noqa: S506  a safe loader with fewer types


@pytest.mark.parametrize("path", CASE_FILES, ids=lambda path: path.stem)
def test_every_acceptance_programme_is_valid(path: Path) -> None:
    cases = read(path.read_text(encoding="utf-8"))
    assert [flaw for case in cases for flaw in flaws(case["programme"], SCHEMA, case["id"])] == []


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.parent.name)
def test_every_example_is_valid(path: Path) -> None:
    assert flaws(read(path.read_text(encoding="utf-8")), SCHEMA) == []


@settings(max_examples=150, deadline=None)
@given(programme_texts())
def test_whatever_checks_is_valid(text: str) -> None:
    assert load_programme(text, "p.yaml").programme is None or flaws(read(text), SCHEMA) == []


@pytest.mark.parametrize(
    "code",
    [Code.MISSING_FIELD, Code.UNKNOWN_FIELD, Code.UNKNOWN_VALUE, Code.WRONG_TYPE, Code.WRONG_TEST],
)
def test_what_is_misspelt_is_flagged_before_it_is_checked(code: Code) -> None:
    assert flaws(read(examples(code)[0]), SCHEMA) != []


def test_an_editor_can_complete_every_field_of_an_event() -> None:
    properties = SCHEMA["$defs"]["condition"]["properties"]
    assert all(path in properties for trigger, fields in FIELDS.items() if trigger != LINE for path in fields)
    assert set(SCHEMA["$defs"]["line"]["properties"]) == {*FIELDS[LINE], "all", "any", "not"}


@pytest.mark.parametrize(
    "path",
    [*CASE_FILES, *(path.with_name("programme.cases.yaml") for path in EXAMPLES)],
    ids=lambda path: path.parent.name,
)
def test_every_golden_example_is_valid(path: Path) -> None:
    cases = read(path.read_text(encoding="utf-8"))
    assert [flaw for case in cases for flaw in flaws(case, SCHEMA["$defs"]["case"], str(case["id"]))] == []


@pytest.mark.parametrize(
    ("written", "misspelt"),
    [
        ("{balances: {ann: {points: {granted: 1}}}}", "{balances: {ann: {points: {grantd: 1}}}}"),
        ("{counts: {points.granted: 1}}", "{counts: {point.granted: 1}}"),
        ("{quarantined: {e: wrong_currency, f: null, g: '*'}}", "{quarantined: {e: wrong_curency}}"),
        ("{refused: {ann: [[base, limit_max]]}}", "{refused: {ann: [[base]]}}"),
        ("{tiers: {ann: {tier: gold, next_tier: null}}}", "{tiers: {ann: {teir: gold}}}"),
        ("{rewards: {ann: []}}", "{reward: {ann: []}}"),
    ],
)
def test_a_misspelt_expectation_in_a_programme_is_flagged(written: str, misspelt: str) -> None:
    section = "tests: [{{id: a, events: [{{type: signup}}], expect: {}}}]"
    programme = "{schema: guerdon/1, programme: p, timezone: UTC, currency: USD, rules: []}"
    assert flaws(read(programme) | read(section.format(written)), SCHEMA) == []
    assert flaws(read(programme) | read(section.format(misspelt)), SCHEMA) != []


@pytest.mark.parametrize(
    ("written", "misspelt"),
    [
        ("points: {validity: 24mo, round_expiry: year}", "points: {validity: 24mo, round_expiry: years}"),
        ("points: {validity: none}", "points: {validty: none}"),
        ("points: {liability_per_point: 0.005, price: 0.01}", "points: {price: 1%}"),
        ("costs: {gift: {mug: 3.20}, coupon: {five-off: 5.00}}", "costs: {badge: {pioneer: 1.00}}"),
        ("margin: 12.5%", "margin: {net: 12.5%}"),
        (
            "rules: [{id: r, on: share, cohort: {salt: s, treat: 50%, planned: 800, metric: net}, give: [{badge: b}]}]",
            "rules: [{id: r, on: share, cohort: {salt: s, treat: 50%, metric: luck}, give: [{badge: b}]}]",
        ),
        ("refunds: {negative: only_pending}", "refunds: {negative: pending}"),
        ("tiers: {metric: status, window: rolling 12mo, levels: [{id: a, from: 0}]}", "tiers: {window: lifetime}"),
        (
            "tiers: {metric: m, window: lifetime, downgrade: never, grace: 2mo, levels: [{id: a, from: 0}]}",
            "tiers: {metric: m, window: lifetime, downgrade: nevr, levels: [{id: a, from: 0}]}",
        ),
        (
            "tiers: {metric: m, window: calendar_year, levels: [{id: a, from: 0, benefits: [b]}]}",
            "tiers: {metric: m, window: calendar_year, levels: [{id: a, form: 0}]}",
        ),
        ("tiers: {metric: m, window: anniversary, levels: [{id: a, from: 0}]}", "tiers: {metric: m, levels: []}"),
        ("catalogue: [{id: a, kind: gift, points: 5, stock: 1}]", "catalogue: [{id: a, kind: present, points: 5}]"),
        ("catalogue: [{id: a, kind: money, points_per: {9: 1.00}, max_share: 5%}]", "catalogue: [{id: a, points: 5}]"),
        ("reserve_for: 7d", "reserve_for: 7 days"),
        ("rules: [{id: r, on: birthday, give: [{badge: b}]}]", "rules: [{id: r, on: birthdy, give: [{badge: b}]}]"),
        (
            "rules: [{id: r, on: tier, when: {tier.to: a, member.tier_rank: {gte: 1}}, give: [{points: 1}]}]",
            "rules: [{id: r, on: tier, when: {tier.too: a}, give: [{points: 1}]}]",
        ),
        (
            "rules: [{id: r, on: anniversary, when: {anniversary.years: 5}, give: [{points: {amount: 1}}]}]",
            "rules: [{id: r, on: anniversary, give: [{points: {amount: 1, valdity: none}}]}]",
        ),
    ],
)  # fmt: skip
def test_terms_and_occasions_are_known_and_what_is_misspelt_in_them_is_flagged(written: str, misspelt: str) -> None:
    programme = "{schema: guerdon/1, programme: p, timezone: UTC, currency: USD, rules: []}"
    assert flaws(read(programme) | read(written), SCHEMA) == []
    assert flaws(read(programme) | read(misspelt), SCHEMA) != []
