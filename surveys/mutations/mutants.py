"""Every way to leave out one term of a source file, in Python by its syntax, in C++ by its text."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Mutant:
    """One change to a file.

    Args:
        file: its path in the repository.
        line: where, from 1.
        function: in which; empty outside of any.
        term: what stands there.
        becomes: what shall stand there.
        span: the bytes of the file that it replaces.
    """

    file: str
    line: int
    function: str
    term: str
    becomes: str
    span: tuple[int, int]

    @property
    def key(self) -> str:
        """What it is called where line numbers change."""
        return f"{self.file}::{self.function}: {_short(self.term)} -> {_short(self.becomes)}"

    def applied(self, text: bytes) -> bytes:
        """The file's text with it."""
        return text[: self.span[0]] + self.becomes.encode() + text[self.span[1] :]


def mutants(root: Path, file: str, functions: frozenset[str] = frozenset()) -> list[Mutant]:
    """The mutants of a file under ``root``; with ``functions``, only of these."""
    text = (root / file).read_bytes()
    found = _of_python(file, text) if file.endswith(".py") else _of_cpp(file, text)
    kept = {(*each.span, each.becomes): each for each in found if each.term != each.becomes}
    return [each for each in kept.values() if not functions or each.function in functions]


def _short(text: str) -> str:
    return " ".join(text.split())


# --- Python

_SWAPPED = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
}  # fmt: skip
# Left out, they leave what they are applied to.
_METHODS = frozenset("to double square clamp rsqrt sqrt abs transpose unsqueeze contiguous relu".split())
_FUNCTIONS = frozenset("cast exp sqrt_rn rsqrt abs sigmoid tanh dense _dense _cast".split())
_EITHER = frozenset("where minimum maximum min max dot addcmul linear".split())


def _of_python(file: str, text: bytes) -> Iterator[Mutant]:
    starts = [0]
    for line in text.splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def span(node: ast.expr | ast.stmt | ast.keyword) -> tuple[int, int]:
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or 0
        return starts[node.lineno - 1] + node.col_offset, starts[end_line - 1] + end_column

    def source(node: ast.expr | ast.stmt | ast.keyword) -> str:
        return text[slice(*span(node))].decode()

    def visit(node: ast.AST, function: str) -> Iterator[Mutant]:
        if isinstance(node, ast.Raise | ast.Assert | ast.Import | ast.ImportFrom | ast.JoinedStr):
            return
        if isinstance(node, ast.FunctionDef):
            function = node.name
            # Neither annotations nor decorators compute.
            children: list[ast.AST] = [*node.args.defaults, *node.body]
        elif isinstance(node, ast.AnnAssign):
            children = [] if node.value is None else [node.value]
        else:
            children = list(ast.iter_child_nodes(node))
        if isinstance(node, ast.expr | ast.stmt):
            for becomes in _without(node, source):
                yield Mutant(file, node.lineno, function, source(node), becomes, span(node))
        for child in children:
            yield from visit(child, function)

    yield from visit(ast.parse(text), "")


def _without(node: ast.expr | ast.stmt, of: Callable[[Any], str]) -> Iterator[str]:
    """What can stand for a node when one of its terms is left out."""

    def alone(part: ast.expr) -> str:
        return f"({of(part)})"

    match node:
        case ast.BinOp(left=left, op=ast.Add() | ast.Mult() | ast.BitAnd() | ast.BitOr(), right=right):
            yield from (alone(left), alone(right))
        case ast.BinOp(left=left, op=ast.Sub(), right=right):
            yield from (alone(left), f"(-{alone(right)})")
        case ast.BinOp(left=left, op=ast.Div(), right=right):
            yield alone(left)
            # Of what is no fraction of one already.
            if of(left) not in ("1", "1.0"):
                yield f"(1 / {alone(right)})"
        case ast.BinOp(left=left):
            yield alone(left)
        case ast.AugAssign(target=target, value=value):
            yield from (f"{of(target)} = {alone(value)}", f"{of(target)} = {of(target)}")
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            yield alone(operand)
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            if type(op) in _SWAPPED:
                yield f"({of(left)} {_SWAPPED[type(op)]} {of(right)})"
        case ast.BoolOp(values=values):
            yield from map(alone, values)
        case ast.IfExp(body=body, orelse=orelse):
            yield from (alone(body), alone(orelse))
        case ast.Call():
            yield from _without_call(node, alone, of)


def _without_call(node: ast.Call, alone: Callable[[Any], str], of: Callable[[Any], str]) -> Iterator[str]:
    args = node.args
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if (
        name in _METHODS
        and isinstance(node.func, ast.Attribute)
        and of(node.func.value) not in ("tl", "torch")
    ):
        yield alone(node.func.value)
    elif name in _FUNCTIONS and args:
        yield alone(args[0])
    elif name in ("where", "dot", "addcmul") and len(args) == 3:
        yield from (alone(each) for each in (args[1:] if name == "where" else args[::2]))
        if name == "addcmul":
            yield f"({alone(args[1])} * {alone(args[2])})"
    elif name in _EITHER and len(args) == 2 and name != "dot":
        yield from map(alone, args)
    elif name == "linear" and len(args) == 3:
        yield f"{of(node.func)}({of(args[0])}, {of(args[1])})"
    for keyword in node.keywords:
        if keyword.arg == "mask":
            others = [*args, *(each for each in node.keywords if each.arg not in ("mask", "other"))]
            yield f"{of(node.func)}({', '.join(of(each) for each in others)})"


# --- C++, formatted: around every binary operator there are blanks, and around no other.

_BINARY = re.compile(r" (\+|-|\*|/|&&|\|\||\+=|-=|\*=|/=|<|<=|>|>=|==|!=|\?) ")
# How tightly operators bind; an operand ends at one that binds no tighter.
_TIGHT = {
    "*": 3, "/": 3, "+": 2, "-": 2, "&": 1.5, "<": 1, "<=": 1, ">": 1, ">=": 1, "==": 1, "!=": 1,
    "&&": 0.6, "||": 0.4, "+=": -1, "-=": -1, "*=": -1, "/=": -1,
}  # fmt: skip
_ENDS = re.compile(r" (\+|-|\*|/|&|\||\^|&&|\|\||<<|>>|<|<=|>|>=|==|!=|\?|:|=|\+=|-=|\*=|/=) ")
_ASSIGNED = ("+=", "-=", "*=", "/=")
_SWAPS = {"<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "=="}


def _of_cpp(file: str, text: bytes) -> Iterator[Mutant]:
    offset, function = 0, ""
    for number, raw in enumerate(text.splitlines(keepends=True), 1):
        line = raw.decode()
        named = re.match(
            r"(?: *(?:INLINED|SEPARATE|static|template|inline|const|bool|void|[\w:<>*]+) )+\**&?(\w+)\(", line
        )
        if (
            named
            and line.rstrip().endswith(("{", ",", "}"))
            and not line.lstrip().startswith(("return", "for", "if", "else"))
        ):
            function = named[1]
        code = line.split("//")[0]
        passive = line.lstrip().startswith(("#", "//", "template", "using", "enum", "static_assert"))
        for found in [] if passive else _BINARY.finditer(code):
            for (start, end), becomes in _without_operand(code, found):
                at = offset + len(line[:start].encode())
                term = line[start:end]
                yield Mutant(file, number, function, term, becomes, (at, at + len(term.encode())))
        offset += len(raw)


def _without_operand(code: str, found: re.Match[str]) -> Iterator[tuple[tuple[int, int], str]]:
    operator = found[1]
    start, end = _left(code, found.start(), operator), _right(code, found.end(), operator)
    left, right = code[start : found.start()], code[found.end() : end]
    whole = start, end
    if operator == "?":
        middle = _right(code, found.end(), "?")
        if code[middle : middle + 3] == " : ":
            last = _right(code, middle + 3, ":")
            whole = start, last
            yield whole, code[found.end() : middle]
            yield whole, code[middle + 3 : last]
    elif not left.strip() or not right.strip():
        return
    elif operator in _SWAPS:
        # Of a loop's bounds memory is at stake, and no term.
        if "for (" not in code:
            yield whole, f"{left} {_SWAPS[operator]} {right}"
    elif operator.endswith("="):
        yield whole, f"{left} = {right}"
        yield whole, left
    else:
        yield whole, left
        if operator in "+*&&||":
            yield whole, right
        elif operator == "-":
            yield whole, f"-({right})"
        elif left not in ("1", "1.0f"):
            yield whole, f"1 / ({right})"


def _right(code: str, at: int, operator: str) -> int:
    """Where the operand that begins here ends."""
    depth = 0
    while at < len(code):
        letter = code[at]
        depth += (letter in "([{") - (letter in ")]}")
        stop = _ENDS.match(code, at) if depth == 0 else None
        ends = stop is not None and _TIGHT.get(stop[1], 0) <= _TIGHT.get(operator, 0)
        if depth < 0 or ends or (depth == 0 and letter in ",;\n"):
            break
        at += 1
    return at


def _left(code: str, at: int, operator: str) -> int:
    """Where the operand that ends here begins."""
    depth, end = 0, at
    while at > 0:
        letter = code[at - 1]
        if letter in ")]}":
            depth += 1
        elif letter in "([{":
            depth -= 1
            if depth < 0:
                break
        # What is assigned to has no blanks outside of brackets.
        elif depth == 0 and letter in (",; " if operator in _ASSIGNED else ",;"):
            break
        elif depth == 0 and letter == " ":
            before = code.rfind(" ", 0, at - 1)
            stop = _ENDS.match(code, before) if before >= 0 else None
            # Operators of one kind are taken from left to right.
            if stop and stop.end() == at and _TIGHT.get(stop[1], 0) < _TIGHT.get(operator, 0.1):
                break
            if stop is None and code[:at].rstrip().endswith(
                ("return", "const", "A", "double", "float", "else")
            ):
                break
        at -= 1
    return at + len(code[at:end]) - len(code[at:end].lstrip())
