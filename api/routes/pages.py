"""Serve the pages that explain the API, without a script and without a network."""

from __future__ import annotations

from html import escape
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response

from api.problems import ALWAYS, CODES, Problem
from operations.access.scopes import MEANINGS, Scope

router = APIRouter(include_in_schema=False)

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem; color: #1a1a1a }
h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc } code { background: #f2f2f2; padding: .1em .3em }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; vertical-align: top; padding: .3rem .6rem;
border-bottom: 1px solid #ddd } table + table { margin-top: 1rem } li { margin: .1rem 0 }
.method { font-weight: bold } .note { color: #555 }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #e4e4e4 } code { background: #2a2a2a }
th, td, h2 { border-color: #444 } .note { color: #aaa } a { color: #8ab4f8 } }
"""


@router.get("/")
def home() -> Response:
    """Lead people who open the address in a browser to the documentation."""
    return Response(status_code=307, headers={"Location": "/docs"})


@router.get("/openapi.json")
def openapi(request: Request) -> Response:
    """Return the OpenAPI file."""
    return JSONResponse(request.app.openapi())


@router.get("/docs")
def docs(request: Request) -> Response:
    """Return a page with every path, its parameters and its answers."""
    file = request.app.openapi()
    operations = [
        (path, method, operation) for path, methods in file["paths"].items() for method, operation in methods.items()
    ]
    parts = [_heading(file), _contents(operations)]
    scopes = request.app.state.scopes
    parts += [_operation(*each, scope=scopes[each[0], each[1].upper()]) for each in operations]
    schemas = file["components"]["schemas"]
    parts.append("<h2>Objects</h2>")
    parts += [_object(name, schemas[name]) for name in sorted(schemas) if "properties" in schemas[name]]
    return _page("Guerdon's API", "".join(parts))


@router.get("/problems/{code}")
def problem(code: str) -> Response:
    """Return the page to which a problem's `type` leads."""
    if code not in CODES:
        raise Problem("not_found", f"there is no problem {code}")
    status, title, remedy = CODES[code]
    body = f"<h1>{escape(title)}</h1><p><code>{code}</code>, status {status}</p><p>{_code(remedy)}</p>"
    return _page(title, body)


@router.get("/style.css")
def style() -> Response:
    """Return the pages' style."""
    return Response(STYLE, media_type="text/css")


def _page(title: str, body: str) -> HTMLResponse:
    return HTMLResponse(
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width"><link rel="stylesheet" href="/style.css"></head>'
        f"<body>{body}</body></html>"
    )


def _heading(file: dict[str, Any]) -> str:
    info = file["info"]
    return (
        f"<h1>{escape(info['title'])} {escape(info['version'])}</h1><p>{_code(info['description'])}</p>"
        '<p>The same for machines: <a href="/openapi.json">openapi.json</a>.</p>'
    )


def _contents(operations: list[tuple[str, str, dict[str, Any]]]) -> str:
    """Return links to all operations, and what all of them have in common."""
    links = "".join(
        f'<li><a href="#{escape(operation["operationId"])}">{method.upper()} {escape(path)}</a></li>'
        for path, method, operation in operations
    )
    always = ", ".join(f'<a href="/problems/{code}">{CODES[code][0]} {code}</a>' for code in ALWAYS)
    return f"<ul>{links}</ul><p>Each of them may also answer {always}.</p>"


def _operation(path: str, method: str, operation: dict[str, Any], *, scope: Scope) -> str:
    # the path, what it does, and who may
    title = f'<span class="method">{method.upper()}</span> <code>{escape(path)}</code>'
    parts = [
        f'<h2 id="{escape(operation["operationId"])}">{title}</h2><p>{_code(operation["description"])}</p>',
        f'<p class="note">Scope <code>{escape(scope)}</code>: {escape(MEANINGS[scope])}</p>',
    ]

    # what it takes
    rows = [
        (each["name"], each["in"], _kind(each["schema"]), each.get("description", ""))
        for each in operation.get("parameters", ())
    ]
    body = operation.get("requestBody", {}).get("content", {})
    rows += [("body", media, _kind(content.get("schema", {})), "") for media, content in body.items()]
    if rows:
        parts.append(_table(("parameter", "in", "type", "meaning"), rows))

    # what it answers
    answers = [
        (status, ", ".join(_kind(content.get("schema", {})) for content in each.get("content", {}).values()),
         each["description"])
        for status, each in sorted(operation["responses"].items())
        if status not in {str(CODES[code][0]) for code in ALWAYS}
    ]  # fmt: skip
    parts.append(_table(("status", "answer", "meaning"), answers))
    return "".join(parts)


def _object(name: str, schema: dict[str, Any]) -> str:
    rows = [(field, _kind(each), each.get("description", "")) for field, each in schema.get("properties", {}).items()]
    meaning = _code(schema.get("description", ""))
    return f'<h3 id="{escape(name)}">{escape(name)}</h3><p>{meaning}</p>{_table(("field", "type", "meaning"), rows)}'


def _kind(schema: dict[str, Any]) -> str:
    """Return the type of a value in a word or two."""
    if "$ref" in schema:
        return str(schema["$ref"]).rsplit("/", 1)[-1]
    if "anyOf" in schema:
        return " or ".join(_kind(each) for each in schema["anyOf"])
    if schema.get("type") == "array":
        return f"list of {_kind(schema.get('items', {}))}"
    if "enum" in schema:
        return " or ".join(map(str, schema["enum"]))
    return str(schema.get("format") or schema.get("type", "any"))


def _table(head: tuple[str, ...], rows: list[tuple[Any, ...]]) -> str:
    cells = "".join(f"<th>{escape(name)}</th>" for name in head)
    lines = "".join("<tr>" + "".join(f"<td>{_code(str(cell))}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<table><tr>{cells}</tr>{lines}</table>"


def _code(text: str) -> str:
    """Return text for a page, in which what stands in backquotes is code."""
    pieces = escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))
