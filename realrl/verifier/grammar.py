r"""Reads tokens as a formula. What it does not know it does not read: nothing is dropped.

    sum      := product (("+" | "-") product)*
    product  := power (("*" | "/" | next to each other) power)*
    power    := atom ("^" power | "!" | "%" | degrees)*
    atom     := number | symbol | function argument | \frac, \sqrt, \binom, \sum | brackets | environment

`1/2x` and `\sin x/2` are written for two formulas each; `readings` gives both.
"""

from __future__ import annotations

from collections.abc import Callable

from realrl.verifier.cursor import Cursor, Unreadable
from realrl.verifier.digits import decimal_number, repeating_number
from realrl.verifier.environments import read_environment
from realrl.verifier.functions import (
    ANY_NUMBER,
    BRACKETED,
    CONSTANTS,
    FUNCTIONS,
    GREEK,
    INVERSES,
    UNIT_VECTORS,
    UNKNOWN_FUNCTIONS,
)
from realrl.verifier.nodes import (
    Applied,
    Array,
    Constant,
    Node,
    Number,
    Operation,
    Repeated,
    Symbol,
    children,
    free_symbols,
    negative,
    operation,
    substituted,
    whole,
)
from realrl.verifier.tokens import CLOSE, COMMAND, LETTERS, NUMBER, OPEN, TEXT, Token, Tokens

MAX_TOKENS = 600
MAX_DEPTH = 60
"""Of what is in each other: brackets, arguments, functions."""
LONGEST_PRODUCT = 3
"""So many letters that stand together may be a product; more are a word."""

_PAIRS = {"(": (")",), "[": ("]",), "{": ("}",), r"\{": (r"\}",), r"\langle": (r"\rangle",)}
_ROUNDING = {r"\lfloor": (r"\rfloor", "floor"), r"\lceil": (r"\rceil", "ceiling")}
_TIMES = ("*", r"\cdot", r"\times")
_OVER = ("/", r"\div")


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
        elif token.text[1:] in FUNCTIONS:
            found.append(Token(LETTERS, token.text[0], token.after_space))
            found.append(Token(COMMAND, f"plain {token.text[1:]}"))
        elif len(token.text) > LONGEST_PRODUCT:
            raise Unreadable(token.text)
        else:
            spaces = (token.after_space, *(False for _ in token.text[1:]))
            found += [Token(LETTERS, letter, space) for letter, space in zip(token.text, spaces, strict=True)]
    return found


class _Parser(Cursor):
    """Reads tokens from left to right; each method takes what it is named after."""

    def __init__(self, tokens: list[Token], tight: bool) -> None:
        super().__init__(tokens)
        self._tight, self._depth, self._open_bars = tight, 0, 0

    def whole(self) -> Node:
        """All tokens."""
        node = self._perhaps_over(self.sum())
        if self.peek() is not None:
            raise Unreadable(f"more after a formula: {self.peek().text}")
        return node

    # Sums and products.

    def sum(self) -> Node:
        terms = [self._signed_product()]
        while self.next_is("+", "-"):
            terms.append(self._signed_product())
        return terms[0] if len(terms) == 1 else operation("add", *terms)

    def _signed_product(self) -> Node:
        is_negative = False
        while self.next_is("+", "-"):
            is_negative ^= self.next_is("-")
            self.at += 1
        node = self._product()
        return negative(node) if is_negative else node

    def _product(self) -> Node:
        node = self._run()
        while True:
            if self.take(*_TIMES) or self._take_x():
                node = _times(node, self._signed_run())
            elif self.take(*_OVER):
                self.nest()
                node = operation("divide", node, self._signed_run())
            elif self.take(r"\angle"):
                node = _times(node, operation("cis", self._signed_run()))
            elif self._starts_factor():
                node = _times(node, self._run())
            else:
                return node

    def _take_x(self) -> bool:
        """An `x` between two numbers is a sign of multiplication."""
        before, token, after = (self.peek(ahead) for ahead in (-1, 0, 1))
        is_x = token is not None and token.kind in (LETTERS, TEXT) and token.text in ("x", "X")
        if is_x and self.at and before.kind == NUMBER and after is not None and after.kind == NUMBER:
            self.at += 1
            return True
        return False

    def _signed_run(self) -> Node:
        if self.take("-"):
            return negative(self._signed_run())
        return self._signed_run() if self.take("+") else self._run()

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
        if self.next_is(r"\frac"):
            start = self.at
            part = self._power()
            if _is_proper_part(part):
                return operation("add", node, part)
            self.at = start
            return None
        top, slash, bottom = (self.peek(ahead) for ahead in range(3))
        if bottom is None or not (
            top.kind == bottom.kind == NUMBER and top.after_space and slash.is_sign("/")
        ):
            return None
        self.at += 3
        fraction = operation("divide", decimal_number(top.text), decimal_number(bottom.text))
        return operation("add", node, fraction)

    def _starts_factor(self) -> bool:
        """Whether what comes next can be multiplied without a sign."""
        token, before = self.peek(), self.tokens[self.at - 1]
        if token is None:
            return False
        match token.kind:
            case "number":
                return before.kind == CLOSE or before.text in ("i", r"\pi", "plain pi", "!")
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
            if self.next_is("^", "!", "%"):
                self.nest()
            if self.next_is("^"):
                node = self._raised(node)
            elif self.take("!"):
                node = operation("double_factorial" if self.take("!") else "factorial", node)
            elif self.take("%"):
                node = operation("divide", node, whole(100))
            elif self.next_is("'") and isinstance(node, Symbol):
                node = self._primed(node)
            else:
                return node

    def _raised(self, base: Node) -> Node:
        self.expect("^")
        if self.take(r"\circ"):
            return _degrees(base)
        if self.next_is("{") and self.peek(1) is not None and self.peek(1).is_sign(r"\circ"):
            self.at += 2
            self.expect("}")
            return _degrees(base)
        if self._takes_transpose():
            return operation("transpose", base)
        if self.next_is("'"):
            raise Unreadable("a raised prime")
        return operation("power", base, self._exponent())

    def _takes_transpose(self) -> bool:
        marks = (["T"], [r"\top"], ["{", "T", "}"], ["{", r"\top", "}"])
        for mark in marks:
            texts = [token.text for token in self.tokens[self.at : self.at + len(mark)]]
            if texts == mark and self.tokens[self.at - 2].kind == CLOSE:
                self.at += len(mark)
                return True
        return False

    def _exponent(self) -> Node:
        self.nest()
        if self.take("-"):
            return negative(self._exponent())
        if self.take("+"):
            return self._exponent()
        if self.next_is("{"):
            base = self._group()
        else:
            base = self._atom()
        return self._raised(base) if self.next_is("^") else base

    def _primed(self, symbol: Symbol) -> Node:
        name = symbol.name
        while self.take("'"):
            name += "'"
        return self._call_of(Symbol(name))

    # Atoms.

    def _atom(self) -> Node:
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise Unreadable("too deep")
        node = self._atom_of(self.peek())
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
        text = self.peek().text
        self.at += 1
        if (period := self._period(text)) is not None:
            return Number(repeating_number(text, period))
        return decimal_number(text)

    def _period(self, text: str) -> str | None:
        r"""The digits that repeat in `0.1\overline{6}` and `0.(3)`."""
        start = self.at
        has_point = "." in text or self.take(".")
        is_marked = self.take(r"\overline") and self.next_is("{")
        is_bracketed = not is_marked and "." not in text and has_point and self.next_is("(")
        if has_point and (is_marked or is_bracketed):
            _, digits, end = (self.peek(ahead) for ahead in range(3))
            if end is not None and digits.kind == NUMBER and "." not in digits.text and end.kind == CLOSE:
                self.at += 3
                return digits.text
        self.at = start
        return None

    def _letter(self) -> Node:
        symbol = Symbol(self.peek().text)
        self.at += 1
        if self.next_is("_"):
            symbol = self._subscripted(symbol)
        return self._primed(symbol) if self.next_is("'") else self._call_of(symbol)

    def _subscripted(self, symbol: Symbol) -> Symbol:
        self.expect("_")
        return Symbol(f"{symbol.name}_{{{self._subscript()}}}")

    def _subscript(self) -> str:
        if not self.take("{"):
            token = self.peek()
            if token is None or token.kind in (OPEN, CLOSE):
                raise Unreadable("no subscript")
            self.at += 1
            return token.text
        parts: list[str] = []
        while not self.take("}"):
            token = self.peek()
            if token is None or len(parts) > 12:
                raise Unreadable("a long subscript")
            parts.append(token.text.removeprefix("plain "))
            self.at += 1
        return "".join(parts)

    def _call_of(self, symbol: Symbol) -> Node:
        """`f(x)` is a value of f; `a(x)` is a product."""
        base = symbol.name.partition("_")[0].rstrip("'")
        is_function = base in UNKNOWN_FUNCTIONS or symbol.name.endswith("'")
        has_several = base == "C" and self.next_is("(")
        if not (self.next_is("(") and (is_function or has_several)):
            return symbol
        start = self.at
        arguments = self._arguments()
        if base == "C" and len(arguments) == 2:
            return operation("binomial", *arguments)
        if is_function:
            return Applied(symbol.name, arguments)
        self.at = start
        return symbol

    def _word(self) -> Node:
        token = self.peek()
        if token.text in ("e", "i"):
            self.at += 1
            return Symbol(token.text)
        if token.text in FUNCTIONS:
            self.at += 1
            return self._function(token.text, is_plain=token.text in BRACKETED)
        if token.text.lower() in CONSTANTS:
            self.at += 1
            return Constant(CONSTANTS[token.text.lower()])
        raise Unreadable(token.text)

    def _bars(self) -> Node:
        self.expect("|")
        self._open_bars += 1
        outer, inside = self._open_bars, None
        inside = self.sum()
        self._open_bars = outer - 1
        self.expect("|")
        return operation("determinant" if isinstance(inside, Array) else "abs", inside)

    def _bracketed(self) -> Node:
        opening = self.peek().text
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
        self.expect(opening)
        bars, self._open_bars = self._open_bars, 0
        node = self.sum()
        self._open_bars = bars
        self.expect(closing)
        return node

    def _entries(self, opening: str) -> tuple[Node, ...]:
        self.expect(opening)
        bars, self._open_bars = self._open_bars, 0
        entries = [self.sum()]
        while self.take(",", ";"):
            entries.append(self.sum())
        self._open_bars = bars
        self.expect(*_PAIRS[opening])
        return tuple(entries)

    def _arguments(self) -> tuple[Node, ...]:
        return self._entries(r"\{" if self.next_is(r"\{") else "(")

    def _group(self) -> Node:
        r"""What braces hold, which may be `{a \over b}`."""
        self.expect("{")
        bars, self._open_bars = self._open_bars, 0
        node = self._perhaps_over(self.sum())
        self._open_bars = bars
        self.expect("}")
        return node

    def _perhaps_over(self, top: Node) -> Node:
        if self.take(r"\over"):
            return operation("divide", top, self.sum())
        return operation("binomial", top, self.sum()) if self.take(r"\choose") else top

    # Commands.

    def _command(self) -> Node:
        name = self.peek().text
        self.at += 1
        is_plain = name.startswith("plain ")
        bare = name.removeprefix("plain ").removeprefix("\\")
        if bare.startswith("begin "):
            return read_environment(self, bare.removeprefix("begin "))
        if bare == "sqrt" and not is_plain:
            return self._root()
        if bare in FUNCTIONS:
            return self._function(bare, is_plain)
        if bare in CONSTANTS:
            return Constant(CONSTANTS[bare])
        if bare in GREEK:
            symbol = Symbol(f"\\{bare}")
            symbol = self._subscripted(symbol) if self.next_is("_") else symbol
            return self._primed(symbol) if self.next_is("'") else symbol
        read = self._READERS.get(bare)
        if read is None:
            raise Unreadable(name)
        return read(self)

    def _argument(self) -> Node:
        r"""A command's argument: a group, or one token of which a number gives its first digit."""
        if self.next_is("{"):
            return self._group()
        if self.next_is("("):
            return self._between("(", ")")
        token = self.peek()
        if token is not None and token.kind == NUMBER and len(token.text) > 1 and "." not in token.text:
            self.tokens[self.at] = Token(NUMBER, token.text[1:])
            self.tokens.insert(self.at, Token(CLOSE, "}"))
            self.at += 1
            return decimal_number(token.text[0])
        return self._atom()

    def _fraction(self) -> Node:
        top = self._argument()
        return operation("divide", top, self._argument())

    def _root(self) -> Node:
        index: Node | None = None
        if self.next_is("["):
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

    def _marked(self, mark: str) -> Node:
        inside = self._argument()
        if not isinstance(inside, Symbol):
            raise Unreadable(f"{mark} over more than a letter")
        if inside.name in UNIT_VECTORS and mark in (r"\hat", r"\vec"):
            return inside
        symbol = Symbol(f"{mark} {inside.name}")
        return self._subscripted(symbol) if self.next_is("_") else symbol

    def _letterlike(self) -> Node:
        return Symbol(r"\ell")

    def _function(self, name: str, is_plain: bool) -> Node:
        power, base = None, None
        while self.next_is("^", "_"):
            if self.take("^"):
                power = self._exponent()
            else:
                self.at += 1
                base = self._base_of_logarithm(is_plain)
        function = FUNCTIONS[name]
        if is_plain and name == "log" and base is None:
            base = self._base_beside()
        if name in ANY_NUMBER:
            return _raised_to(operation(function, *self._arguments()), power)
        if is_plain and not self.next_is("(", "{") and name == "sqrt":
            return _raised_to(operation("sqrt", self._atom()), power)
        if power == whole(-1) and name in INVERSES:
            function, power = INVERSES[name], None
        if is_plain and name in BRACKETED and not self.next_is("(", "[", "{"):
            raise Unreadable(f"{name} without brackets")
        argument = self._function_argument()
        if name == "log":
            argument_of_log = (argument,) if base is None else (argument, base)
            return _raised_to(Operation("log", argument_of_log), power)
        if base is not None:
            raise Unreadable(f"a base of {name}")
        return _raised_to(operation(function, argument), power)

    def _base_beside(self) -> Node | None:
        """The base of `log2(8)`."""
        token, after = self.peek(), self.peek(1)
        is_base = token is not None and token.kind == NUMBER and not token.after_space
        if not is_base or after is None or after.text != "(":
            return None
        self.at += 1
        return decimal_number(token.text)

    def _base_of_logarithm(self, is_plain: bool) -> Node:
        if self.next_is("{"):
            return self._group()
        return self._atom() if is_plain else self._argument()

    def _function_argument(self) -> Node:
        """In brackets, or all factors up to a sign or another function."""
        if self.next_is("(", "["):
            return self._bracketed_argument()
        if self.next_is("-"):
            self.at += 1
            return negative(self._function_argument())
        node = self._power()
        while self._continues_argument():
            if self.take("/"):
                node = operation("divide", node, self._power())
            else:
                self.take(*_TIMES)
                node = _times(node, self._power())
        return node

    def _bracketed_argument(self) -> Node:
        opening = self.peek().text
        entries = self._entries(opening)
        if len(entries) != 1:
            raise Unreadable("too many arguments")
        return entries[0]

    def _continues_argument(self) -> bool:
        token, after = self.peek(), self.peek(1)
        if token is None:
            return False
        if token.is_sign("/") and self._tight:
            return after is not None and not _is_function(after)
        return self._starts_factor() and not _is_function(token) and not token.text == "("

    # Sums, products, matrices, cases.

    def _repeated(self, name: str) -> Node:
        self.expect("_")
        self.expect("{")
        index = self._atom()
        self.expect("=")
        low = self.sum()
        self.expect("}")
        self.expect("^")
        high = self._exponent()
        if not isinstance(index, Symbol):
            raise Unreadable("no index")
        return Repeated(name, index, low, high, self._product())

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
    is_known = bare in FUNCTIONS or bare in CONSTANTS or bare in GREEK or bare in _Parser._READERS
    return is_known or bare.startswith("begin ")


def _is_function(token: Token) -> bool:
    bare = token.text.removeprefix("plain ").removeprefix("\\")
    return token.kind in (COMMAND, TEXT) and bare in FUNCTIONS and bare != "sqrt"


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
