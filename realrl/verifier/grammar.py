r"""Reads tokens as a formula. What it does not know it does not read: nothing is dropped.

    sum      := product (("+" | "-") product)*
    product  := power (("*" | "/" | next to each other) power)*
    power    := atom ("^" power | "!" | "%" | degrees)*
    atom     := number | symbol | function argument | \frac, \sqrt, \binom, \sum | brackets | environment

`1/2x` and `\sin x/2` are written for two formulas each; `readings` gives both.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from realrl.verifier.functions import (
    ANY_NUMBER,
    CONSTANTS,
    FUNCTIONS,
    GREEK,
    INVERSES,
    UNKNOWN_FUNCTIONS,
)
from realrl.verifier.nodes import (
    Applied,
    Array,
    Condition,
    Constant,
    Node,
    Number,
    Operation,
    Piecewise,
    Repeated,
    Symbol,
    children,
    free_symbols,
    negative,
    operation,
    substituted,
    whole,
)
from realrl.verifier.tokens import CLOSE, COMMAND, LETTERS, NUMBER, OPEN, SIGN, TEXT, Token, Tokens

MAX_TOKENS = 600
MAX_DEPTH = 60
"""Of what is in each other: brackets, arguments, functions."""
MAX_NESTED = 120
"""Of quotients, powers and factorials, which may be in each other without brackets."""
MAX_DIGITS = 1000
LONGEST_PRODUCT = 3
"""So many letters that stand together may be a product; more are a word."""

_PAIRS = {"(": (")",), "[": ("]",), "{": ("}",), r"\{": (r"\}",), r"\langle": (r"\rangle",)}
_ROUNDING = {r"\lfloor": (r"\rfloor", "floor"), r"\lceil": (r"\rceil", "ceiling")}
_TIMES = ("*", r"\cdot", r"\times")
_OVER = ("/", r"\div")
_MATRICES = frozenset("matrix pmatrix bmatrix Bmatrix smallmatrix array".split())
_ORDERS = {"<": "<", ">": ">", r"\le": "<=", r"\ge": ">=", "=": "=", r"\ne": "!="}


class Unreadable(Exception):
    """The tokens are no formula."""


def readings(tokens: Tokens) -> tuple[Node, ...]:
    """What the tokens may mean as a formula, the usual reading first; nothing if they mean none."""
    found: dict[Node, None] = {}
    for tight in (False, True):
        if tight and not any(token.is_sign("/") for token in tokens):
            break
        try:
            found[formula(tokens, tight=tight)] = None
        except Unreadable:
            continue
    return tuple(found)


def formula(tokens: Tokens, *, tight: bool = False) -> Node:
    """The tree of a formula; with `tight`, a factor written next to another binds closer than `/`.

    Raises:
        Unreadable: the tokens are no formula.
    """
    if len(tokens) > MAX_TOKENS:
        raise Unreadable("too long")
    parser = _Parser(_expanded(tokens), tight)
    node = parser.whole()
    return _with_constants(node)


def _with_constants(node: Node) -> Node:
    """With `e` and `i`, where no sum binds them, as the numbers that they are."""
    names = {"e": Constant("e"), "i": Constant("i")}
    return substituted(node, names) if free_symbols(node) & names.keys() else node


def _expanded(tokens: Tokens) -> list[Token]:
    """The tokens with letters that stand together cut into single ones, or into a name that they are."""
    found: list[Token] = []
    for token in tokens:
        if token.kind != LETTERS or len(token.text) == 1:
            found.append(token)
        elif token.text in FUNCTIONS or token.text in CONSTANTS or token.text in GREEK:
            found.append(Token(COMMAND, f"plain {token.text}", token.after_space))
        elif len(token.text) > LONGEST_PRODUCT:
            raise Unreadable(token.text)
        else:
            spaces = (token.after_space, *(False for _ in token.text[1:]))
            found += [Token(LETTERS, letter, space) for letter, space in zip(token.text, spaces, strict=True)]
    return found


class _Parser:
    """Reads tokens from left to right; each method takes what it is named after."""

    def __init__(self, tokens: list[Token], tight: bool) -> None:
        self._tokens, self._tight, self._at = tokens, tight, 0
        self._depth, self._nested, self._open_bars = 0, 0, 0

    # What comes next.

    def _peek(self, ahead: int = 0) -> Token | None:
        place = self._at + ahead
        return self._tokens[place] if place < len(self._tokens) else None

    def _next_is(self, *signs: str) -> bool:
        token = self._peek()
        return token is not None and token.kind in (SIGN, COMMAND, OPEN, CLOSE) and token.text in signs

    def _take(self, *signs: str) -> bool:
        if self._next_is(*signs):
            self._at += 1
            return True
        return False

    def _expect(self, *signs: str) -> None:
        if not self._take(*signs):
            raise Unreadable(f"no {signs[0]}")

    def whole(self) -> Node:
        """All tokens."""
        node = self._perhaps_over(self.sum())
        if self._peek() is not None:
            raise Unreadable(f"more after a formula: {self._peek().text}")
        return node

    def _nest(self) -> None:
        """Count what may put a node into a node without brackets."""
        self._nested += 1
        if self._nested > MAX_NESTED:
            raise Unreadable("too deep")

    # Sums and products.

    def sum(self) -> Node:
        terms = [self._signed_product()]
        while self._next_is("+", "-"):
            terms.append(self._signed_product())
        return terms[0] if len(terms) == 1 else operation("add", *terms)

    def _signed_product(self) -> Node:
        is_negative = False
        while self._next_is("+", "-"):
            is_negative ^= self._next_is("-")
            self._at += 1
        node = self._product()
        return negative(node) if is_negative else node

    def _product(self) -> Node:
        node = self._run()
        while True:
            if self._take(*_TIMES) or self._take_x():
                node = _times(node, self._signed_run())
            elif self._take(*_OVER):
                self._nest()
                node = operation("divide", node, self._signed_run())
            elif self._take(r"\angle"):
                node = _times(node, operation("cis", self._signed_run()))
            elif self._starts_factor():
                node = _times(node, self._run())
            else:
                return node

    def _take_x(self) -> bool:
        """An `x` between two numbers is a sign of multiplication."""
        before, token, after = (self._peek(ahead) for ahead in (-1, 0, 1))
        is_x = token is not None and token.kind in (LETTERS, TEXT) and token.text in ("x", "X")
        if is_x and self._at and before.kind == NUMBER and after is not None and after.kind == NUMBER:
            self._at += 1
            return True
        return False

    def _signed_run(self) -> Node:
        if self._take("-"):
            return negative(self._signed_run())
        return self._signed_run() if self._take("+") else self._run()

    def _run(self) -> Node:
        """Factors next to each other, if they bind closer than `/`; else a single one."""
        node = self._power()
        if isinstance(node, Number) and (mixed := self._fraction_after(node)) is not None:
            return mixed
        while self._tight and self._starts_factor():
            node = _times(node, self._power())
        return node

    def _fraction_after(self, node: Number) -> Node | None:
        r"""`1\frac12` and `1 1/2` are a whole number and a fraction of one."""
        if node.value.denominator != 1 or node.decimals or node.value < 0:
            return None
        if self._next_is(r"\frac"):
            start = self._at
            part = self._power()
            if _is_proper_part(part):
                return operation("add", node, part)
            self._at = start
            return None
        top, slash, bottom = (self._peek(ahead) for ahead in range(3))
        if bottom is None or not (
            top.kind == bottom.kind == NUMBER and top.after_space and slash.is_sign("/")
        ):
            return None
        self._at += 3
        fraction = operation("divide", _number(top.text), _number(bottom.text))
        return operation("add", node, fraction)

    def _starts_factor(self) -> bool:
        """Whether what comes next can be multiplied without a sign."""
        token, before = self._peek(), self._tokens[self._at - 1]
        if token is None:
            return False
        match token.kind:
            case "number":
                return before.kind == CLOSE
            case "letters":
                return True
            case "text":
                return token.text in ("e", "i", *FUNCTIONS)
            case "open":
                return token.text in _PAIRS or token.text in _ROUNDING
            case "sign":
                return token.text == "|" and not self._open_bars
        return _is_factor(token.text)

    # Powers and what follows an atom.

    def _power(self) -> Node:
        node = self._atom()
        while True:
            if self._next_is("^", "!", "%"):
                self._nest()
            if self._next_is("^"):
                node = self._raised(node)
            elif self._take("!"):
                node = operation("double_factorial" if self._take("!") else "factorial", node)
            elif self._take("%"):
                node = operation("divide", node, whole(100))
            elif self._next_is("'") and isinstance(node, Symbol):
                node = self._primed(node)
            else:
                return node

    def _raised(self, base: Node) -> Node:
        self._expect("^")
        if self._take(r"\circ"):
            return _degrees(base)
        if self._next_is("{") and self._peek(1) is not None and self._peek(1).is_sign(r"\circ"):
            self._at += 2
            self._expect("}")
            return _degrees(base)
        if self._takes_transpose():
            return operation("transpose", base)
        if self._next_is("'"):
            raise Unreadable("a raised prime")
        return operation("power", base, self._exponent())

    def _takes_transpose(self) -> bool:
        marks = (["T"], [r"\top"], ["{", "T", "}"], ["{", r"\top", "}"])
        for mark in marks:
            texts = [token.text for token in self._tokens[self._at : self._at + len(mark)]]
            if texts == mark and self._tokens[self._at - 2].kind == CLOSE:
                self._at += len(mark)
                return True
        return False

    def _exponent(self) -> Node:
        self._nest()
        if self._take("-"):
            return negative(self._exponent())
        if self._take("+"):
            return self._exponent()
        if self._next_is("{"):
            base = self._group()
        else:
            base = self._atom()
        return self._raised(base) if self._next_is("^") else base

    def _primed(self, symbol: Symbol) -> Node:
        name = symbol.name
        while self._take("'"):
            name += "'"
        return self._call_of(Symbol(name))

    # Atoms.

    def _atom(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("too deep")
        node = self._atom_of(self._peek())
        self._depth -= 1
        return node

    def _atom_of(self, token: Token | None) -> Node:
        if token is None:
            raise Unreadable("a formula that ends too early")
        match token.kind:
            case "number":
                return self._numeral()
            case "letters":
                return self._letter()
            case "text":
                return self._word()
            case "open":
                return self._bracketed()
            case "sign" if token.text == "|":
                return self._bars()
            case "command":
                return self._command()
        raise Unreadable(token.text)

    def _numeral(self) -> Node:
        text = self._peek().text
        self._at += 1
        if (period := self._period(text)) is not None:
            return Number(_repeating(text, period))
        return _number(text)

    def _period(self, text: str) -> str | None:
        r"""The digits that repeat in `0.1\overline{6}` and `0.(3)`."""
        start = self._at
        has_point = "." in text or self._take(".")
        is_marked = self._take(r"\overline") and self._next_is("{")
        is_bracketed = not is_marked and "." not in text and has_point and self._next_is("(")
        if has_point and (is_marked or is_bracketed):
            _, digits, end = (self._peek(ahead) for ahead in range(3))
            if end is not None and digits.kind == NUMBER and "." not in digits.text and end.kind == CLOSE:
                self._at += 3
                return digits.text
        self._at = start
        return None

    def _letter(self) -> Node:
        symbol = Symbol(self._peek().text)
        self._at += 1
        if self._next_is("_"):
            symbol = self._subscripted(symbol)
        return self._primed(symbol) if self._next_is("'") else self._call_of(symbol)

    def _subscripted(self, symbol: Symbol) -> Symbol:
        self._expect("_")
        return Symbol(f"{symbol.name}_{{{self._subscript()}}}")

    def _subscript(self) -> str:
        if not self._take("{"):
            token = self._peek()
            if token is None or token.kind in (OPEN, CLOSE):
                raise Unreadable("no subscript")
            self._at += 1
            return token.text
        parts: list[str] = []
        while not self._take("}"):
            token = self._peek()
            if token is None or len(parts) > 12:
                raise Unreadable("a long subscript")
            parts.append(token.text.removeprefix("plain "))
            self._at += 1
        return "".join(parts)

    def _call_of(self, symbol: Symbol) -> Node:
        """`f(x)` is a value of f; `a(x)` is a product."""
        base = symbol.name.partition("_")[0].rstrip("'")
        is_function = base in UNKNOWN_FUNCTIONS or symbol.name.endswith("'")
        has_several = base == "C" and self._next_is("(")
        if not (self._next_is("(") and (is_function or has_several)):
            return symbol
        start = self._at
        arguments = self._arguments()
        if base == "C" and len(arguments) == 2:
            return operation("binomial", *arguments)
        if is_function:
            return Applied(symbol.name, arguments)
        self._at = start
        return symbol

    def _word(self) -> Node:
        token = self._peek()
        if token.text in ("e", "i"):
            self._at += 1
            return Symbol(token.text)
        if token.text in FUNCTIONS:
            self._at += 1
            return self._function(token.text, is_plain=False)
        if token.text.lower() in CONSTANTS:
            self._at += 1
            return Constant(CONSTANTS[token.text.lower()])
        raise Unreadable(token.text)

    def _bars(self) -> Node:
        self._expect("|")
        self._open_bars += 1
        outer, inside = self._open_bars, None
        inside = self.sum()
        self._open_bars = outer - 1
        self._expect("|")
        return operation("abs", inside)

    def _bracketed(self) -> Node:
        opening = self._peek().text
        if opening in _ROUNDING:
            closing, name = _ROUNDING[opening]
            return operation(name, self._between(opening, closing))
        if opening not in ("(", "[", "{", r"\langle"):
            raise Unreadable(opening)
        if opening == "{":
            return self._group()
        entries = self._entries(opening)
        return entries[0] if len(entries) == 1 and opening != r"\langle" else _array(entries)

    def _between(self, opening: str, closing: str) -> Node:
        self._expect(opening)
        bars, self._open_bars = self._open_bars, 0
        node = self.sum()
        self._open_bars = bars
        self._expect(closing)
        return node

    def _entries(self, opening: str) -> tuple[Node, ...]:
        self._expect(opening)
        bars, self._open_bars = self._open_bars, 0
        entries = [self.sum()]
        while self._take(",", ";"):
            entries.append(self.sum())
        self._open_bars = bars
        self._expect(*_PAIRS[opening])
        return tuple(entries)

    def _arguments(self) -> tuple[Node, ...]:
        return self._entries("(")

    def _group(self) -> Node:
        r"""What braces hold, which may be `{a \over b}`."""
        self._expect("{")
        bars, self._open_bars = self._open_bars, 0
        node = self._perhaps_over(self.sum())
        self._open_bars = bars
        self._expect("}")
        return node

    def _perhaps_over(self, top: Node) -> Node:
        if self._take(r"\over"):
            return operation("divide", top, self.sum())
        return operation("binomial", top, self.sum()) if self._take(r"\choose") else top

    # Commands.

    def _command(self) -> Node:
        name = self._peek().text
        self._at += 1
        is_plain = name.startswith("plain ")
        bare = name.removeprefix("plain ").removeprefix("\\")
        if bare.startswith("begin "):
            return self._environment(bare.removeprefix("begin "))
        if bare == "sqrt" and not is_plain:
            return self._root()
        if bare in FUNCTIONS:
            return self._function(bare, is_plain)
        if bare in CONSTANTS:
            return Constant(CONSTANTS[bare])
        if bare in GREEK:
            symbol = Symbol(f"\\{bare}")
            symbol = self._subscripted(symbol) if self._next_is("_") else symbol
            return self._primed(symbol) if self._next_is("'") else symbol
        read = self._READERS.get(bare)
        if read is None:
            raise Unreadable(name)
        return read(self)

    def _argument(self) -> Node:
        r"""A command's argument: a group, or one token of which a number gives its first digit."""
        if self._next_is("{"):
            return self._group()
        if self._next_is("("):
            return self._between("(", ")")
        token = self._peek()
        if token is not None and token.kind == NUMBER and len(token.text) > 1 and "." not in token.text:
            self._tokens[self._at] = Token(NUMBER, token.text[1:])
            self._tokens.insert(self._at, Token(CLOSE, "}"))
            self._at += 1
            return _number(token.text[0])
        return self._atom()

    def _fraction(self) -> Node:
        top = self._argument()
        return operation("divide", top, self._argument())

    def _root(self) -> Node:
        index: Node | None = None
        if self._next_is("["):
            index = self._between("[", "]")
        radicand = self._argument()
        return operation("sqrt", radicand) if index is None else operation("root", radicand, index)

    def _binomial(self) -> Node:
        top = self._argument()
        return operation("binomial", top, self._argument())

    def _overline(self) -> Node:
        inside = self._argument()
        if not isinstance(inside, Symbol):
            raise Unreadable("a line over more than a letter")
        return operation("conjugate", inside)

    def _conjugated(self) -> Node:
        raise Unreadable("a mark over a letter")

    def _marked(self, mark: str) -> Node:
        inside = self._argument()
        if not isinstance(inside, Symbol):
            raise Unreadable(f"{mark} over more than a letter")
        symbol = Symbol(f"{mark} {inside.name}")
        return self._subscripted(symbol) if self._next_is("_") else symbol

    def _letterlike(self) -> Node:
        return Symbol(r"\ell")

    def _function(self, name: str, is_plain: bool) -> Node:
        power, base = None, None
        while self._next_is("^", "_"):
            if self._take("^"):
                power = self._exponent()
            else:
                self._at += 1
                base = self._base_of_logarithm(is_plain)
        function = FUNCTIONS[name]
        if name in ANY_NUMBER:
            return _raised_to(operation(function, *self._arguments()), power)
        if is_plain and not self._next_is("(", "{") and name == "sqrt":
            return _raised_to(operation("sqrt", self._atom()), power)
        if power == whole(-1) and name in INVERSES:
            function, power = INVERSES[name], None
        argument = self._function_argument()
        if name == "log":
            argument_of_log = (argument,) if base is None else (argument, base)
            return _raised_to(Operation("log", argument_of_log), power)
        if base is not None:
            raise Unreadable(f"a base of {name}")
        return _raised_to(operation(function, argument), power)

    def _base_of_logarithm(self, is_plain: bool) -> Node:
        if self._next_is("{"):
            return self._group()
        return self._atom() if is_plain else self._argument()

    def _function_argument(self) -> Node:
        """In brackets, or all factors up to a sign or another function."""
        if self._next_is("(", "["):
            return self._bracketed_argument()
        if self._next_is("-"):
            self._at += 1
            return negative(self._function_argument())
        node = self._power()
        while self._continues_argument():
            if self._take("/"):
                node = operation("divide", node, self._power())
            else:
                self._take(*_TIMES)
                node = _times(node, self._power())
        return node

    def _bracketed_argument(self) -> Node:
        opening = self._peek().text
        entries = self._entries(opening)
        if len(entries) != 1:
            raise Unreadable("too many arguments")
        return entries[0]

    def _continues_argument(self) -> bool:
        token, after = self._peek(), self._peek(1)
        if token is None:
            return False
        if token.is_sign("/") and self._tight:
            return after is not None and not _is_function(after)
        return self._starts_factor() and not _is_function(token) and not token.text == "("

    # Sums, products, matrices, cases.

    def _repeated(self, name: str) -> Node:
        self._expect("_")
        self._expect("{")
        index = self._atom()
        self._expect("=")
        low = self.sum()
        self._expect("}")
        self._expect("^")
        high = self._exponent()
        if not isinstance(index, Symbol):
            raise Unreadable("no index")
        return Repeated(name, index, low, high, self._product())

    def _environment(self, name: str) -> Node:
        if name == "cases":
            return self._cases()
        if name not in (*_MATRICES, "vmatrix"):
            raise Unreadable(name)
        rows = self._rows(name)
        self._expect(rf"\end {name}")
        if len({len(row) for row in rows}) != 1:
            raise Unreadable("rows of several lengths")
        array = Array(tuple(rows))
        return operation("determinant", array) if name == "vmatrix" else array

    def _rows(self, name: str) -> list[tuple[Node, ...]]:
        rows: list[tuple[Node, ...]] = []
        while not self._next_is(rf"\end {name}"):
            entries = [self.sum()]
            while self._take("&"):
                entries.append(self.sum())
            rows.append(tuple(entries))
            if not self._take(r"\\"):
                break
        return rows

    def _cases(self) -> Node:
        cases: list[tuple[Node, tuple[Condition, ...]]] = []
        while not self._next_is(r"\end cases"):
            value = self.sum()
            self._take(",")
            cases.append((value, self._conditions()))
            self._take(",")
            if not self._take(r"\\"):
                break
        self._expect(r"\end cases")
        return Piecewise(tuple(cases))

    def _conditions(self) -> tuple[Condition, ...]:
        self._take("&")
        while (
            (token := self._peek()) is not None and token.kind == TEXT and token.text in ("if", "for", "when")
        ):
            self._at += 1
        if (token := self._peek()) is not None and token.kind == TEXT and token.text in ("otherwise", "else"):
            self._at += 1
            return ()
        sides, operators = [self.sum()], []
        while self._next_is(*_ORDERS):
            operators.append(_ORDERS[self._peek().text])
            self._at += 1
            sides.append(self.sum())
        if not operators:
            raise Unreadable("a case without a condition")
        pairs = zip(operators, sides, sides[1:])
        return tuple(Condition(operator, left, right) for operator, left, right in pairs)

    _READERS: dict[str, Callable[[_Parser], Node]] = {
        "frac": _fraction,
        "binom": _binomial,
        "overline": _overline,
        "hat": lambda self: self._marked(r"\hat"),
        "vec": lambda self: self._marked(r"\vec"),
        "dot": lambda self: self._marked(r"\dot"),
        "ddot": lambda self: self._marked(r"\ddot"),
        "tilde": lambda self: self._marked(r"\tilde"),
        "ell": _letterlike,
        "hbar": lambda self: Symbol(r"\hbar"),
        "sum": lambda self: self._repeated("sum"),
        "prod": lambda self: self._repeated("product"),
    }


def _is_factor(command: str) -> bool:
    bare = command.removeprefix("plain ").removeprefix("\\")
    starts = ("frac", "sqrt", "binom", "overline", "hat", "vec", "dot", "ddot", "ell", "hbar", "sum", "prod")
    is_known = bare in FUNCTIONS or bare in CONSTANTS or bare in GREEK or bare in starts
    return is_known or bare.startswith("begin ")


def _is_function(token: Token) -> bool:
    bare = token.text.removeprefix("plain ").removeprefix("\\")
    return token.kind in (COMMAND, TEXT) and bare in FUNCTIONS and bare != "sqrt"


def _number(text: str) -> Number:
    if len(text) > MAX_DIGITS:
        raise Unreadable("a long number")
    whole_part, _, decimals = text.partition(".")
    value = Fraction(int(whole_part + decimals or "0"), 10 ** len(decimals))
    return Number(value, len(decimals))


def _repeating(start: str, period: str) -> Fraction:
    """The rational number whose digits repeat: the tail is its period over as many nines."""
    _, _, decimals = start.partition(".")
    tail = Fraction(int(period), (10 ** len(period) - 1) * 10 ** len(decimals))
    return _number(start).value + tail


def _is_proper_part(node: Node) -> bool:
    if not (isinstance(node, Operation) and node.name == "divide"):
        return False
    return all(isinstance(operand, Number) and operand.value.denominator == 1 for operand in node.operands)


def _times(left: Node, right: Node) -> Node:
    operands = left.operands if isinstance(left, Operation) and left.name == "multiply" else (left,)
    return Operation("multiply", (*operands, right))


def _degrees(node: Node) -> Node:
    return operation("degrees", node)


def _raised_to(node: Node, power: Node | None) -> Node:
    return node if power is None else operation("power", node, power)


def _array(entries: tuple[Node, ...]) -> Node:
    """A vector, or a matrix of vectors of one length."""
    if all(isinstance(entry, Array) and len(entry.rows) == 1 for entry in entries):
        rows = tuple(entry.rows[0] for entry in entries)
        if len({len(row) for row in rows}) == 1:
            return Array(rows)
    if any(isinstance(entry, Array) for entry in entries):
        raise Unreadable("a vector of vectors of several lengths")
    return Array((entries,))


def has_operation(node: Node, names: frozenset[str]) -> bool:
    """Whether one of the named operations is anywhere in a formula."""
    if isinstance(node, Operation) and node.name in names:
        return True
    return any(has_operation(child, names) for child in children(node))
