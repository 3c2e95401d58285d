"""A seccomp filter for student code: threads yes, other processes no.

Process limits do not hold for an administrator's processes, and memory limits hold per process; without
`fork` neither matters. The filter is a classic BPF program (`struct sock_filter`, 8 bytes an instruction;
see the kernel's Documentation/userspace-api/seccomp_filter.rst), which bubblewrap installs before it starts
Python. System call numbers are those of the kernel's tables for x86-64 and arm64.
"""

from __future__ import annotations

import errno
import platform
import struct

from labsupport.errors import LabsupportError

LOAD_WORD, JUMP_IF_EQUAL, JUMP_IF_AT_LEAST, JUMP_IF_ANY_BIT, RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
ALLOW, FAIL_WITH, KILL = 0x7FFF0000, 0x00050000, 0x80000000
NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
CLONE_THREAD = 0x00010000
X32_CALLS = 0x40000000

# architecture → (audit number, clone, clone3, calls refused: new processes, memory that no limit counts
# (memfd, System V), namespaces, mounts, tracing, keyrings, BPF, page-fault handlers, performance counters,
# io_uring)
TABLES = {
    "x86_64": (
        0xC000003E,
        56,
        435,
        (
            29,
            57,
            58,
            68,
            101,
            165,
            166,
            248,
            249,
            250,
            272,
            298,
            308,
            310,
            311,
            319,
            321,
            323,
            425,
            426,
            427,
            447,
        ),
    ),
    "aarch64": (
        0xC00000B7,
        220,
        435,
        (39, 40, 97, 117, 186, 194, 217, 218, 219, 241, 268, 270, 271, 279, 280, 282, 425, 426, 427, 447),
    ),
}


def no_new_processes(machine: str | None = None) -> bytes:
    """The filter for this machine's processor, as bubblewrap's `--seccomp` reads it.

    Raises `LabsupportError` for a processor whose system calls are not known here.
    """
    machine = machine or platform.machine()
    if machine not in TABLES:
        raise LabsupportError(
            f"No system call filter is known for {machine}.",
            allowed=", ".join(TABLES),
            remedy="grade on one of these, where student code can be kept from starting processes",
        )
    audit, clone, clone3, refused = TABLES[machine]
    refuse = (RETURN, 0, 0, FAIL_WITH | errno.EPERM)
    program = [
        (LOAD_WORD, 0, 0, ARCHITECTURE),
        (JUMP_IF_EQUAL, 1, 0, audit),
        (RETURN, 0, 0, KILL),
        (LOAD_WORD, 0, 0, NUMBER),
        (JUMP_IF_AT_LEAST, 0, 1, X32_CALLS),
        refuse,
        # glibc falls back to clone, whose flags can be looked at
        (JUMP_IF_EQUAL, 0, 1, clone3),
        (RETURN, 0, 0, FAIL_WITH | errno.ENOSYS),
    ]
    for number in refused:
        program += [(JUMP_IF_EQUAL, 0, 1, number), refuse]
    program += [
        (JUMP_IF_EQUAL, 0, 3, clone),
        (LOAD_WORD, 0, 0, FIRST_ARGUMENT),
        (JUMP_IF_ANY_BIT, 1, 0, CLONE_THREAD),
        refuse,
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("<HBBI", *instruction) for instruction in program)
