"""Reads an answer as data where a scorer of reasoning-gym would evaluate it as Python.

A scorer's module gets these functions in place of `eval` and `parse_expr`. What they do not read raises
ValueError, which scorers take for a wrong answer. A task whose module evaluates texts and is in neither table
here is refused.
"""

from __future__ import annotations

import ast
import functools
import inspect
import operator
import re
import sys
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import sympy
from sympy.parsing.sympy_parser import parse_expr

_LONGEST = 20_000
"""Characters of a text that is read: more than the largest board or matrix has."""
_EVALUATORS = frozenset({"eval", "exec", "compile", "parse_expr", "sympify", "parse_latex", "lambdify"})
"""Functions that evaluate a text, by the last part of their name."""

_TOKEN = re.compile(
    r"\s+|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<name>[A-Za-z]\w*)|\*\*|[-+*/^(),!]"
)
_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc asin acos atan acot sinh cosh tanh asinh acosh atanh exp log ln sqrt Abs abs"
    " sign erf".split()
)
_CONSTANTS = frozenset({"E", "I", "pi"})
_VARIABLE = re.compile(r"[A-Za-z](?:_?\d{1,3})?")
_SIGNS = {ast.UAdd: operator.pos, ast.USub: operator.neg, ast.Invert: operator.invert}
_OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
    ast.BitAnd: operator.and_,
    ast.BitOr: operator.or_,
    ast.BitXor: operator.xor,
}


def read_literal(text: str) -> Any:
    """A list, a number, a text or other plain data, as it is written in Python.

    Raises:
        ValueError, SyntaxError: it is something else.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"expected at most {_LONGEST} characters, got {len(text)}")
    return ast.literal_eval(text)


def read_expression(text: str, local_dict: dict[str, Any] | None = None) -> sympy.Expr:
    """An expression of numbers, variables of one letter and elementary functions.

    Raises:
        ValueError: it holds something else, as an attribute, a text or another function.
    """
    if len(text) > _LONGEST:
        raise ValueError(f"expected at most {_LONGEST} characters, got {len(text)}")
    end = 0
    while end < len(text):
        token = _TOKEN.match(text, end)
        if token is None or not _is_known(token["name"], local_dict or {}):
            raise ValueError(f"expected an expression, got {text[end : end + 40]!r} in it")
        end = token.end()
    return parse_expr(text, local_dict=local_dict)


def read_arithmetic(text: str) -> int:
    """The value of whole numbers joined by operators, as a row's own problem is.

    Raises:
        ValueError, SyntaxError: there is something else.
    """
    return _value(ast.parse(text.strip(), mode="eval").body)


def _value(node: ast.expr) -> int:
    match node:
        case ast.Constant(value=int() as value):
            return value
        case ast.UnaryOp(op=sign, operand=operand) if type(sign) in _SIGNS:
            return _SIGNS[type(sign)](_value(operand))
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in _OPERATIONS:
            return _OPERATIONS[type(operation)](_value(left), _value(right))
    raise ValueError(f"expected whole numbers and operators, got {ast.unparse(node):.100}")


_READS: dict[str, dict[str, Callable[..., Any]]] = {
    "binary_matrix": {"eval": read_literal},
    "n_queens": {"eval": read_literal},
    "number_sorting": {"eval": read_literal},
    "spiral_matrix": {"eval": read_literal},
    "string_insertion": {"eval": read_literal},
    "bitwise_arithmetic": {"eval": read_arithmetic},
    "countdown": {"parse_expr": read_expression},
    "puzzle24": {"parse_expr": read_expression},
    "intermediate_integration": {"sympy.parse_expr": read_expression},
    "polynomial_multiplication": {"sp.parse_expr": read_expression},
    "simple_integration": {"sympy.parse_expr": read_expression},
}
"""By task: what its module evaluates by, and what takes its place."""
_MAKES_ROWS = frozenset({"basic_arithmetic", "bf", "codeio", "propositional_logic"})
"""Tasks whose module evaluates, to make a row, what it wrote itself; or has a function of such a name that
evaluates nothing, as `propositional_logic` its own `parse_expr`.
"""


def evaluates_answers(task: str) -> bool:
    """Whether the library would evaluate an answer to this task, and a reader takes it here."""
    return task in _READS


def make_safe(task: str, dataset_class: type) -> None:
    """Have a task's scorer read answers as data.

    Raises:
        ValueError: it evaluates them in a way that is not known here.
    """
    module = sys.modules[dataset_class.__module__]
    if task in _MAKES_ROWS:
        return
    readers = _READS.get(task, {})
    if unknown := sorted(_evaluators(module) - readers.keys()):
        raise ValueError(
            f"the scorer of {task} may evaluate an answer as Python ({unknown[0]}), which is never done with"
            " what a model wrote; leave this task out"
        )
    for name, reader in readers.items():
        package, _, function = name.rpartition(".")
        setattr(getattr(module, package) if package else module, function, reader)


@functools.cache
def _evaluators(module: ModuleType) -> frozenset[str]:
    """The names by which a module's source calls what evaluates."""
    return frozenset(_called(ast.parse(inspect.getsource(module))))


def _called(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name.rpartition(".")[2] in _EVALUATORS and not name.startswith("re."):
                yield name


def _is_known(name: str | None, local_dict: dict[str, Any]) -> bool:
    if name is None:
        return True
    return name in _FUNCTIONS or name in _CONSTANTS or name in local_dict or bool(_VARIABLE.fullmatch(name))
