"""From CUDA C++ to C++: the two forms of CUDA that no macro of the shim can take."""

from __future__ import annotations

import re

_LAUNCH = re.compile(r"^(\s*)([\w:]+(?:<[^;(){}]*>)?)<<<", re.MULTILINE)
_END_OF_LAUNCH = re.compile(r">>>\s*\(")
_TYPE = r"(?:__align__\(\d+\)\s+)?([\w:]+(?:<[^;]*>)?)"
_DYNAMIC = re.compile(rf"extern\s+__shared__\s+{_TYPE}\s+(\w+)\s*\[\s*\]\s*;")
_STATIC = re.compile(rf"__shared__\s+{_TYPE}\s+(\w+)((?:\s*\[[^\]]+\])*)\s*;")


def to_cpp(source: str, name: str) -> str:
    """A `.cu` file's text with launches and shared variables as calls of rehearsal.h, line by line.

    Raises:
        ValueError: a launch or a shared variable in a form that is not known here.
    """
    text = _LAUNCH.sub(r"\1::rehearsal::Launch<\2>(", source)
    text = _END_OF_LAUNCH.sub(")(", text)
    text = _DYNAMIC.sub(r"\1 *const \2 = ::rehearsal::shared_rest<\1>();", text)
    # The tag is a type of the function's instance, and so is the variable.
    text = _STATIC.sub(r"struct \2_tag; auto &\2 = ::rehearsal::shared<\1\3, \2_tag>();", text)
    for number, line in enumerate(text.splitlines(), start=1):
        code = line.partition("//")[0]
        if "<<<" in code or "__shared__" in code:
            raise ValueError(
                f"{name}:{number}: tests/rehearsal/translate.py does not know this form: {line.strip()}"
            )
    return f'#line 1 "{name}"\n{text}'
