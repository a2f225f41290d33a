"""Make the `ast` nodes of generated code.

The other modules of this folder build statements with these functions and never with text::

    when(compare(name("field_0"), ">=", constant(5000)), [assign("award_0", constant(25))])

is this Python::

    if field_0 >= 5000:
        award_0 = 25

Every name in generated code is the compiler's own and every constant a value: nothing that an author writes is code.
"""

from __future__ import annotations

import ast
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

INTEGER_OPERATORS: dict[str, ast.operator] = {
    "+": ast.Add(), "-": ast.Sub(), "*": ast.Mult(), "//": ast.FloorDiv(), "%": ast.Mod(),
}  # fmt: skip
COMPARISONS: dict[str, ast.cmpop] = {
    "==": ast.Eq(), "!=": ast.NotEq(), "<": ast.Lt(), "<=": ast.LtE(), ">": ast.Gt(), ">=": ast.GtE(),
    "in": ast.In(), "not in": ast.NotIn(), "is": ast.Is(), "is not": ast.IsNot(),
}  # fmt: skip
_LEAVES = (ast.Name, ast.Constant)
_BRANCHES = (ast.expr, ast.stmt, ast.arguments, ast.arg)
"""Nodes that have a place or hold nodes that have one; contexts and operators do neither."""
_PLACE = {"lineno": 1, "col_offset": 0, "end_lineno": 1, "end_col_offset": 0}


def name(identifier: str) -> ast.Name:
    """Read a variable."""
    return ast.Name(identifier, ast.Load())


def constant(value: str | bytes | int | bool | None) -> ast.Constant:  # noqa: FBT001  a constant may be a truth value
    """Write a value."""
    return ast.Constant(value)


def attribute(of: ast.expr, identifier: str) -> ast.Attribute:
    """Read an attribute."""
    return ast.Attribute(of, identifier, ast.Load())


def call(function: ast.expr, *arguments: ast.expr) -> ast.Call:
    """Call a function with positional arguments."""
    return ast.Call(function, list(arguments), [])


def arithmetic(left: ast.expr, operator: str, right: ast.expr) -> ast.BinOp:
    """Combine two integers (or two byte strings with +)."""
    return ast.BinOp(left, INTEGER_OPERATORS[operator], right)


def compare(left: ast.expr, comparison: str, right: ast.expr) -> ast.Compare:
    """Compare two values."""
    return ast.Compare(left, [COMPARISONS[comparison]], [right])


def both(parts: Sequence[ast.expr]) -> ast.expr:
    """Hold where all parts hold; there must be at least one."""
    return parts[0] if len(parts) == 1 else ast.BoolOp(ast.And(), list(parts))


def either(parts: Sequence[ast.expr]) -> ast.expr:
    """Hold where any part holds; there must be at least one."""
    return parts[0] if len(parts) == 1 else ast.BoolOp(ast.Or(), list(parts))


def pair(first: ast.expr, second: ast.expr) -> ast.Tuple:
    """Put two values together."""
    return ast.Tuple([first, second], ast.Load())


def negated(part: ast.expr) -> ast.expr:
    """Hold where `part` does not."""
    return ast.UnaryOp(ast.Not(), part)


def choose(condition: ast.expr, then: ast.expr, otherwise: ast.expr) -> ast.IfExp:
    """Choose between two values."""
    return ast.IfExp(condition, then, otherwise)


def assign(identifier: str, value: ast.expr) -> ast.stmt:
    """Set a variable."""
    return ast.Assign([ast.Name(identifier, ast.Store())], value)


def increase(of: ast.expr, identifier: str, by: ast.expr) -> ast.stmt:
    """Add to an attribute."""
    return ast.AugAssign(ast.Attribute(of, identifier, ast.Store()), ast.Add(), by)


def increase_name(identifier: str, by: ast.expr) -> ast.stmt:
    """Add to a variable."""
    return ast.AugAssign(ast.Name(identifier, ast.Store()), ast.Add(), by)


def when(condition: ast.expr, then: list[ast.stmt], otherwise: list[ast.stmt] | None = None) -> ast.stmt:
    """Run statements where a condition holds."""
    return ast.If(condition, then, otherwise or [])


def run(expression: ast.expr) -> ast.stmt:
    """Evaluate an expression for its effect."""
    return ast.Expr(expression)


def note(text: str) -> ast.stmt:
    """Say in generated code what follows; Python drops it when it compiles, `listing` prints it as a comment."""
    return ast.Expr(ast.Constant(text))


def give_back(value: ast.expr) -> ast.stmt:
    """Return from the function."""
    return ast.Return(value)


def placed(module: ast.Module) -> ast.Module:
    """Give every node the same place, which Python's compiler demands; `ast.fix_missing_locations` is far slower."""
    nodes: list[ast.AST] = list(module.body)
    while nodes:
        node = nodes.pop()
        parts = node.__dict__
        if type(node) not in _LEAVES:
            for part in parts.values():
                if type(part) is list:
                    nodes += part
                elif isinstance(part, _BRANCHES):
                    nodes.append(part)
        parts.update(_PLACE)
    return module


def function(identifier: str, arguments: tuple[str, ...], body: list[ast.stmt]) -> ast.FunctionDef:
    """Define a function of positional arguments."""
    parameters = ast.arguments(
        posonlyargs=[], args=[ast.arg(a) for a in arguments], kwonlyargs=[], kw_defaults=[], defaults=[]
    )
    return ast.FunctionDef(identifier, parameters, body, [])
