"""Find values that are glued into SQL: every text that PostgreSQL is asked must be made of the project's constants.

A text is followed from the call that runs it, such as `cursor.execute(text)`, back to what it is made of: through
f-strings, sums, local names, attributes, functions that return it and calls that pass it. At the end of each path must
stand a constant, a name that psycopg2 quotes, or a number that an f-string formats as one: `{number:d}`.
"""

from __future__ import annotations

import ast
from collections import defaultdict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

METHODS = {"execute": 0, "executemany": 0, "mogrify": 0, "copy_expert": 0, "one": 0}
FUNCTIONS = {"execute_values": 1, "one": 1}
"""What runs SQL, and the place of its text among the arguments."""

PASSES_ON = {
    "join", "format", "replace", "decode", "items", "values", "sorted", "tuple", "list", "map", "SQL", "text",
    "as_string",
}  # fmt: skip
"""Functions and methods whose result holds nothing but what they are called on and with."""

SAFE = {"Identifier", "Literal", "mogrify", "read_text"}
"""What quotes the values that it is given, and what reads a file of the project's own SQL."""

Function = ast.FunctionDef | ast.AsyncFunctionDef
Comprehension = ast.ListComp | ast.SetComp | ast.GeneratorExp | ast.DictComp


class Texts:
    """Follow the texts of some modules, each given by the name of its file and its syntax tree."""

    def __init__(self, modules: Iterable[tuple[str, ast.Module]]) -> None:
        self._file: dict[ast.AST, str] = {}
        self._parent: dict[ast.AST, ast.AST] = {}
        self._imported: dict[str, dict[str, str]] = defaultdict(dict)
        self._calls: dict[str, list[ast.Call]] = defaultdict(list)
        self._functions: dict[str, list[Function]] = defaultdict(list)
        self._seen: set[ast.AST] = set()
        for file, tree in modules:
            self._read(file, tree)

    def _read(self, file: str, tree: ast.Module) -> None:
        for node in ast.walk(tree):
            self._file[node] = file
            self._parent |= dict.fromkeys(ast.iter_child_nodes(node), node)
            if isinstance(node, ast.ImportFrom):
                self._imported[file] |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
            elif isinstance(node, ast.Call):
                self._calls[_last_name(node.func)].append(node)
            elif isinstance(node, Function):
                self._functions[node.name].append(node)

    def glued(self) -> list[str]:
        """Return file, line and expression of everything in a text that is neither a constant nor quoted."""
        culprits = set()
        for name in {*METHODS, *FUNCTIONS}:
            for call in self._calls[name]:
                place = (METHODS if isinstance(call.func, ast.Attribute) else FUNCTIONS).get(name)
                if place is not None and len(call.args) > place:
                    culprits |= {
                        f"{self._file[leaf]}:{getattr(leaf, 'lineno', 0)} {ast.unparse(leaf)}"
                        for leaf in self._leaves(call.args[place])
                    }
        return sorted(culprits)

    def _leaves(self, text: ast.AST) -> Iterator[ast.AST]:
        """Yield the parts of an expression that could hold a value; nothing is followed twice."""
        if text in self._seen:
            return
        self._seen.add(text)
        match text:
            case ast.Constant() | ast.FormattedValue(format_spec=ast.JoinedStr(values=[ast.Constant(value="d")])):
                return
            case ast.Name():
                yield from self._leaves_of_name(text)
            case ast.Attribute():
                yield from self._leaves_of_attribute(text)
            case ast.Call():
                yield from self._leaves_of_call(text)
            case _:
                parts = _parts_of(text)
                if parts is None:
                    yield text
                else:
                    yield from self._all_leaves(parts)

    def _all_leaves(self, texts: Iterable[ast.AST]) -> Iterator[ast.AST]:
        for text in texts:
            yield from self._leaves(text)

    def _leaves_of_name(self, name: ast.Name) -> Iterator[ast.AST]:
        """Follow a name to where a comprehension, a function or its caller binds it; a module's own are constants."""
        for around in self._around(name):
            # the innermost scope that binds the name decides
            if isinstance(around, Comprehension):
                values = [part for each in around.generators for part in _bound(each.target, each.iter, name.id)]
            elif isinstance(around, Function):
                values = [part for node in ast.walk(around) for part in _bound_by(node, name.id)]
                if name.id in _parameters(around):
                    if around.name in METHODS:  # whose calls are all followed
                        return
                    passed = list(self._passed(around, name.id))
                    if not passed:
                        yield name
                    values += passed
            elif isinstance(around, ast.Module):
                is_bound = any(True for node in around.body for _ in _bound_by(node, name.id))
                if not is_bound and name.id not in self._imported[self._file[name]]:
                    yield name
                return
            else:
                continue

            if values:
                yield from self._all_leaves(values)
                return

    def _leaves_of_attribute(self, attribute: ast.Attribute) -> Iterator[ast.AST]:
        """Follow an attribute to what its class sets it to or to its property; that of a module is a constant."""
        base = attribute.value
        if isinstance(base, ast.Name) and base.id in self._imported[self._file[attribute]]:
            return

        # what the class binds to it, or what a property of this name returns
        values: list[ast.AST] = []
        if isinstance(base, ast.Name) and base.id == "self":
            (owner,) = [each for each in self._around(attribute) if isinstance(each, ast.ClassDef)][:1]
            values = [part for node in ast.walk(owner) for part in _bound_by(node, f"self.{attribute.attr}")]
        properties = [each for each in self._functions[attribute.attr] if each.decorator_list]
        values += [part for each in properties for part in _returned(each)]

        if values:
            yield from self._all_leaves(values)
        else:
            yield attribute

    def _leaves_of_call(self, call: ast.Call) -> Iterator[ast.AST]:
        """Follow a call into what the function returns; methods of texts hand on what they are given."""
        name = _last_name(call.func)
        functions = [each for each in self._functions[name] if self._may_call(call, each)]
        if name in SAFE:
            return
        if name in PASSES_ON:
            base = [call.func.value] if isinstance(call.func, ast.Attribute) else []
            given = base if name == "as_string" else [*base, *call.args, *(each.value for each in call.keywords)]
            yield from self._all_leaves(each for each in given if not self._is_function(each))
        elif functions:
            yield from self._all_leaves(part for each in functions for part in _returned(each))
        else:
            yield call

    def _is_function(self, text: ast.AST) -> bool:
        """Whether an argument is a function, as of `map`, or the module `sql`, and no text."""
        names = {*self._functions, "sql", "Identifier"}
        return isinstance(text, ast.Name | ast.Attribute) and _last_name(text) in names

    def _passed(self, function: Function, parameter: str) -> Iterator[ast.AST]:
        """Yield what every call of a function in the project passes for a parameter, and its default."""
        # the default
        arguments = function.args
        names = [each.arg for each in (*arguments.posonlyargs, *arguments.args)]
        defaults = dict(zip(reversed(names), reversed(arguments.defaults), strict=False))
        defaults |= {
            each.arg: value for each, value in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True) if value
        }
        if parameter in defaults:
            yield defaults[parameter]

        # a class is called by its own name, and a method without `self`
        owner = self._parent[function]
        called = owner.name if function.name == "__init__" and isinstance(owner, ast.ClassDef) else function.name
        if names and names[0] in {"self", "cls"}:
            names = names[1:]

        # the arguments, by name or by place
        for call in self._calls[called]:
            if not self._may_call(call, function):
                continue
            named = {each.arg: each.value for each in call.keywords}
            if arguments.kwarg and arguments.kwarg.arg == parameter:
                yield from (value for key, value in named.items() if key not in names)
            elif parameter in named:
                yield named[parameter]
            elif parameter in names and names.index(parameter) < len(call.args):
                yield call.args[names.index(parameter)]

    def _may_call(self, call: ast.Call, function: Function) -> bool:
        """Whether a call of a function's name may mean that function, by what its module imports."""
        home = self._file[function].removesuffix(".py").replace("/", ".")
        imported = self._imported[self._file[call]]

        # a method: its class, or something beside it, is imported where it is called
        if isinstance(self._parent[function], ast.ClassDef):
            is_known = self._file[call] == self._file[function] or any(
                each.startswith(f"{home}.") for each in imported.values()
            )
            return is_known and (isinstance(call.func, ast.Attribute) or function.name == "__init__")

        # a function: by its module, or by its own name
        if isinstance(call.func, ast.Attribute):
            return imported.get(_last_name(call.func.value)) == home
        return (
            self._file[call] == self._file[function] or imported.get(_last_name(call.func)) == f"{home}.{function.name}"
        )

    def _around(self, node: ast.AST) -> Iterator[ast.AST]:
        """Yield what stands around a node, the innermost first."""
        while node in self._parent:
            node = self._parent[node]
            yield node


def _parts_of(text: ast.AST) -> Iterable[ast.AST] | None:
    """Return the expressions that a text is made of; None where it is made in no way that is known here."""
    match text:
        case ast.IfExp(body=body, orelse=other):
            return [body, other]
        case ast.Subscript(value=value) | ast.FormattedValue(value=value) | ast.Starred(value=value):
            return [value]
        case ast.ListComp(elt=each) | ast.SetComp(elt=each) | ast.GeneratorExp(elt=each):
            return [each]
        case ast.BinOp() | ast.BoolOp() | ast.JoinedStr() | ast.Tuple() | ast.List() | ast.Dict():
            return [each for each in ast.iter_child_nodes(text) if isinstance(each, ast.expr)]
    return None


def _last_name(function: ast.AST) -> str:
    """Return the name that is called, without what stands before its last dot."""
    if isinstance(function, ast.Attribute):
        return function.attr
    return function.id if isinstance(function, ast.Name) else ""


def _parameters(function: Function) -> set[str]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs, arguments.vararg, arguments.kwarg]
    return {each.arg for each in every if each is not None}


def _returned(function: Function) -> Iterator[ast.AST]:
    yield from (node.value for node in ast.walk(function) if isinstance(node, ast.Return) and node.value)


def _bound_by(statement: ast.AST, name: str) -> Iterator[ast.AST]:
    """Yield what a statement binds to a name, or to an attribute such as `self.table`."""
    match statement:
        case ast.Assign(targets=targets, value=value):
            for target in targets:
                yield from _bound(target, value, name)
        case ast.AnnAssign(target=target, value=value) if value:
            yield from _bound(target, value, name)
        case ast.AugAssign(target=target, value=value) | ast.NamedExpr(target=target, value=value):
            yield from _bound(target, value, name)
        case ast.For(target=target, iter=value):
            yield from _bound(target, value, name, is_loop=True)


def _bound(target: ast.AST, value: ast.AST, name: str, *, is_loop: bool = False) -> Iterator[ast.AST]:
    """Yield the part of a value that lands in a name, where both are tuples of one shape; else the whole value."""
    if isinstance(target, ast.Name | ast.Attribute):
        if ast.unparse(target) == name:
            yield value
        return
    if isinstance(target, ast.Tuple):
        for place, each in enumerate(target.elts):
            for part in _parts(value, place, len(target.elts), is_loop=is_loop):
                yield from _bound(each, part, name)


def _parts(value: ast.AST, place: int, length: int, *, is_loop: bool) -> Iterator[ast.AST]:
    if is_loop and isinstance(value, ast.Tuple | ast.List):
        for row in value.elts:
            yield from _parts(row, place, length, is_loop=False)
    elif isinstance(value, ast.IfExp):
        yield from _parts(value.body, place, length, is_loop=is_loop)
        yield from _parts(value.orelse, place, length, is_loop=is_loop)
    elif not is_loop and isinstance(value, ast.Tuple) and len(value.elts) == length:
        yield value.elts[place]
    else:
        yield value
