"""The probe of the confinement of judges: it confines its own process, which cannot be undone."""

from __future__ import annotations

import socket
from collections.abc import Iterator

from realrl.apps.doctor.finding import Finding, Probe, ok, problem
from realrl.base.confinement import confine

_MEMORY_BYTES = 1 << 30


def look_at_seccomp() -> Iterator[Finding]:
    """Yield whether a process can confine itself, as those that compare answers do."""
    means = "answers are compared in confined processes only, so whatever grades them ends at its start"
    try:
        confine(memory_bytes=_MEMORY_BYTES)
    except OSError as error:
        do = "let the container filter system calls: without no_new_privs or seccomp forbidden by its profile"
        yield problem("judges", f"a process cannot be confined here ({error})", means, do)
        return
    try:
        socket.socket().close()
    except PermissionError:
        yield ok("judges", "a process confines itself: no sockets, no programs, no writing (seccomp)")
    else:
        do = "run on a Linux kernel: emulations of one accept the filter and ignore it"
        yield problem("judges", "a confined process could still open a socket", means, do)


PROBES = (Probe("judges", look_at_seccomp),)
