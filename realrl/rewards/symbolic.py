"""The child process that compares expressions by sympy, which may take forever.

Run as `python -m realrl.rewards.symbolic DEADLINE_S MEMORY_BYTES`. Each line of its input is
`{"left": …, "right": …}`; each line of its output `{"equal": bool}` or `{"error": str}`, but for the first,
`{"ready": true}`. It ends with its input.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import sys
import threading
from typing import Any, TextIO

import sympy
from latex2sympy2_extended import latex2sympy
from latex2sympy2_extended.latex2sympy2 import ConversionConfig

_CONVERSION = ConversionConfig(lowercase_symbols=False)


def equal(left: str, right: str) -> bool:
    """Whether two LaTeX expressions mean the same; what cannot be read equals nothing."""
    first, second = _parse(left), _parse(right)
    return first is not None and second is not None and _same(first, second)


def _parse(latex: str) -> Any:
    try:
        parsed = latex2sympy(latex, conversion_config=_CONVERSION)
    except (MemoryError, RecursionError):
        raise
    except Exception:  # the parser raises bare exceptions, and this is the only reading that we have
        return None
    if isinstance(parsed, sympy.Eq) and isinstance(parsed.lhs, sympy.Symbol):
        parsed = parsed.rhs
    if isinstance(parsed, sympy.MatrixBase):
        return parsed.as_immutable()
    return parsed.subs(sympy.Symbol("i"), sympy.I) if isinstance(parsed, sympy.Basic) else parsed


def _same(first: Any, second: Any) -> bool:
    if first == second:
        return True
    if isinstance(first, sympy.MatrixBase) and isinstance(second, sympy.MatrixBase):
        return first.shape == second.shape and _same_all(first, second)
    if isinstance(first, sympy.Expr) and isinstance(second, sympy.Expr):
        return _same_expression(first, second)
    if isinstance(first, sympy.FiniteSet) and isinstance(second, sympy.FiniteSet):
        return _same_members(list(first.args), list(second.args))
    if isinstance(first, sympy.Basic) and isinstance(second, sympy.Basic) and first.func == second.func:
        return bool(first.args) and len(first.args) == len(second.args) and _same_all(first.args, second.args)
    return False


def _same_all(first: Any, second: Any) -> bool:
    return all(_same(a, b) for a, b in zip(first, second, strict=True))


def _same_members(first: list, second: list) -> bool:
    for member in first:
        twin = next((other for other in second if _same(member, other)), None)
        if twin is None:
            return False
        second.remove(twin)
    return not second


def _same_expression(first: sympy.Expr, second: sympy.Expr) -> bool:
    difference = sympy.nsimplify((first - second).doit(), rational=True)
    if not difference.free_symbols and difference.is_finite is not False:
        value = difference.evalf(30)
        if value.is_number and value.is_comparable and abs(value) > sympy.Rational(1, 10**12):
            return False
    return bool(sympy.simplify(difference) == 0)


def serve(requests: TextIO, replies: TextIO, *, deadline_s: float) -> None:
    """Answer each line of `requests` until they end; a second thread sees the end during a comparison too."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(requests, lines), daemon=True).start()
    print(json.dumps({"ready": True}), file=replies, flush=True)
    while True:
        request = json.loads(lines.get())
        _limit_cpu(deadline_s)
        print(json.dumps(_reply(request)), file=replies, flush=True)


def _read(requests: TextIO, lines: queue.SimpleQueue[str]) -> None:
    for line in requests:
        lines.put(line)
    os._exit(0)


def _reply(request: dict[str, str]) -> dict[str, Any]:
    try:
        return {"equal": equal(request["left"], request["right"])}
    except MemoryError:
        raise
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"[:300]}


def _limit_cpu(deadline_s: float) -> None:
    """End an orphan too that holds the interpreter's lock, and so never sees its input end."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    seconds = int(used.ru_utime + used.ru_stime + deadline_s) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (seconds, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def main(deadline_s: float, memory_bytes: int) -> None:
    """Serve the pipes that this process was started with; what a library prints goes to the errors."""
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    serve(sys.stdin, replies, deadline_s=deadline_s)


if __name__ == "__main__":
    main(float(sys.argv[1]), int(sys.argv[2]))
