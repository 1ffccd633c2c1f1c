"""Reads answers as data where a scorer of reasoning-gym would evaluate them as Python.

These functions replace `eval` and `parse_expr` in a scorer's module. Any other text raises ValueError,
which scorers take for a wrong answer. A task whose module evaluates texts, and which no table here lists, is
refused.
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
"""The most characters of a text that is read: more than the largest board or matrix has."""
_EVALUATORS = frozenset({"eval", "exec", "compile", "parse_expr", "sympify", "parse_latex", "lambdify"})
"""Functions that evaluate a text, by the last part of their dotted name."""

_TOKEN = re.compile(
    r"\s+|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)|(?P<name>[A-Za-z]\w*)|\*\*|[-+*/^(),!]"
)
_FUNCTIONS = frozenset(
    "sin cos tan cot sec csc asin acos atan acot sinh cosh tanh asinh acosh atanh exp log ln sqrt Abs abs"
    " sign erf".split()
)
_CONSTANTS = frozenset({"E", "I", "pi"})
_VARIABLE = re.compile(r"[A-Za-z](?:_?\d{1,3})?")
_SIGNS: dict[type[ast.unaryop], Callable[[int], int]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Invert: operator.invert,
}
_OPERATIONS: dict[type[ast.operator], Callable[[int, int], int]] = {
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
    """Return the value of a Python literal: a list, a number, a text or other plain data.

    Raises:
        ValueError, SyntaxError: the text is no literal, or too long.
    """
    _check_length(text)
    return ast.literal_eval(text)


def read_expression(text: str, local_dict: dict[str, Any] | None = None) -> sympy.Expr:
    """Return an expression of numbers, one-letter variables and elementary functions.

    Raises:
        ValueError: the text is too long or holds anything else, such as an attribute, a string or another
            function.
    """
    _check_length(text)
    local_names = local_dict or {}
    end = 0
    while end < len(text):
        token = _TOKEN.match(text, end)
        if token is None or not _is_known(token["name"], local_names):
            unknown = text[end : end + 40]
            raise ValueError(f"expected an expression, got {unknown!r} in it")
        end = token.end()
    # `parse_expr` evaluates the text as Python, but every token of it is known now.
    return parse_expr(text, local_dict=local_dict)


def read_arithmetic(text: str) -> int:
    """Return the value of whole numbers joined by operators, which is how a row states its own problem.

    Raises:
        ValueError, SyntaxError: the text holds anything else.
    """
    tree = ast.parse(text.strip(), mode="eval")
    return _value(tree.body)


def _check_length(text: str) -> None:
    if len(text) > _LONGEST:
        raise ValueError(f"expected at most {_LONGEST} characters, got {len(text)}")


def _value(node: ast.expr) -> int:
    """Return the value of an arithmetic expression."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.UnaryOp):
        apply_sign = _SIGNS.get(type(node.op))
        if apply_sign is not None:
            operand = _value(node.operand)
            return apply_sign(operand)
    if isinstance(node, ast.BinOp):
        operate = _OPERATIONS.get(type(node.op))
        if operate is not None:
            left = _value(node.left)
            right = _value(node.right)
            return operate(left, right)
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
"""For each task: the functions by which its module evaluates texts, and their replacements."""
_MAKES_ROWS = frozenset({"basic_arithmetic", "bf", "codeio", "propositional_logic"})
"""Tasks whose module never evaluates an answer. It evaluates only its own text, to generate a row, or has a
harmless function of such a name: `propositional_logic` has its own `parse_expr`.
"""


def evaluates_answers(task: str) -> bool:
    """Return whether the library would evaluate an answer to this task, so that a reader replaces that."""
    return task in _READS


def make_safe(task: str, dataset_class: type) -> None:
    """Make a task's scorer read answers as data.

    Raises:
        ValueError: the scorer's module evaluates texts by a function without a reader.
    """
    module = sys.modules[dataset_class.__module__]
    if task in _MAKES_ROWS:
        return
    readers = _READS.get(task, {})
    unknown = sorted(_evaluators(module) - readers.keys())
    if unknown:
        raise ValueError(
            f"the scorer of {task} may evaluate an answer as Python ({unknown[0]}), which is never done with"
            " what a model wrote; leave this task out"
        )
    for name, reader in readers.items():
        package, _, function = name.rpartition(".")
        owner = getattr(module, package) if package else module
        setattr(owner, function, reader)


@functools.cache
def _evaluators(module: ModuleType) -> frozenset[str]:
    """Return the evaluating functions that a module's source calls, by their dotted names."""
    tree = ast.parse(inspect.getsource(module))
    return frozenset(_called(tree))


def _called(tree: ast.AST) -> Iterator[str]:
    """Yield the name of each call of an evaluating function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            last_part = name.rpartition(".")[2]
            # `re.compile` evaluates nothing.
            if last_part in _EVALUATORS and not name.startswith("re."):
                yield name


def _is_known(name: str | None, local_dict: dict[str, Any]) -> bool:
    """Return whether a name in an expression is harmless; None: the token is no name."""
    if name is None:
        return True
    return name in _FUNCTIONS or name in _CONSTANTS or name in local_dict or bool(_VARIABLE.fullmatch(name))
