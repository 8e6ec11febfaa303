"""System calls that Python does not offer, through ctypes. Each raises OSError with the name of the call.

Knows the calls and their constants, and nothing of what they are used for.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct

CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_REC, MS_PRIVATE = 32, 4096, 16384, 1 << 18
MNT_DETACH = 2
MOUNT_ATTR_RDONLY, MOUNT_ATTR_NOSUID, MOUNT_ATTR_NODEV = 1, 2, 4
_AT_FDCWD, _AT_RECURSIVE, _AT_EMPTY_PATH = -100, 0x8000, 0x1000

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_SECCOMP = 1, 4, 22
_PR_SET_NO_NEW_PRIVS = 38
_PR_SET_CHILD_SUBREAPER, _PR_GET_CHILD_SUBREAPER, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 36, 37, 47, 4
_SECCOMP_MODE_FILTER = 2
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8

# The numbers of these are alike on every architecture that came after 2019; pivot_root and capset are not.
_NR_MOUNT_SETATTR = 442
_NR_PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}
_NR_CAPSET = {"x86_64": 126, "aarch64": 91}
_NR_SECCOMP = {"x86_64": 317, "aarch64": 277}

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def _checked(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def raw(number: int, *arguments: object, what: str = "syscall") -> int:
    """Any system call by its number; integers are passed as 64 bits."""
    words = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return _checked(_libc.syscall(ctypes.c_long(number), *words), what)


def unshare(flags: int) -> None:
    _checked(_libc.unshare(flags), f"unshare({flags:#x})")


def setns(fd: int, kind: int) -> None:
    _checked(_libc.setns(fd, kind), f"setns({kind:#x})")


def mount(source: str, target: str, kind: str = "", flags: int = 0, data: str = "") -> None:
    words = [text.encode() if text else None for text in (source, target, kind)]
    _checked(_libc.mount(*words, flags, data.encode() or None), f"mount {kind or 'bind'} on {target}")


def unmount_lazily(target: str) -> None:
    _checked(_libc.umount2(target.encode(), MNT_DETACH), f"umount {target}")


def seal_mounts(target: str) -> None:
    """Makes a mount and all below it read-only, without set-uid programs and devices."""
    flags = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV
    attributes = struct.pack("=QQQQ", flags, 0, 0, 0)
    raw(
        _NR_MOUNT_SETATTR, _AT_FDCWD, target.encode(), _AT_RECURSIVE, attributes, len(attributes),
        what=f"mount_setattr {target}",
    )  # fmt: skip


def pivot_root_here() -> None:
    """The working directory becomes the root; the old root is gone."""
    raw(_NR_PIVOT_ROOT[platform.machine()], b".", b".", what="pivot_root")
    unmount_lazily(".")
    os.chdir("/")


def _prctl(what: str, option: int, *arguments: int) -> None:
    _checked(_libc.prctl(option, *(*arguments, 0, 0, 0, 0)[:4]), f"prctl {what}")


def die_with_parent(signal: int) -> None:
    _prctl("PDEATHSIG", _PR_SET_PDEATHSIG, signal)


def adopt_orphans(adopts: bool = True) -> None:
    """Descendants whose parent dies become children of this process."""
    _prctl("CHILD_SUBREAPER", _PR_SET_CHILD_SUBREAPER, int(adopts))


def adopts_orphans() -> bool:
    answer = ctypes.c_int()
    _prctl("CHILD_SUBREAPER", _PR_GET_CHILD_SUBREAPER, ctypes.addressof(answer))
    return bool(answer.value)


def allow_own_proc() -> None:
    """After a change of user id: the process may see its own entries in /proc again."""
    _prctl("DUMPABLE", _PR_SET_DUMPABLE, 1)


def hide_memory() -> None:
    """From processes of the same user, /proc/PID/mem and the like; a fork has this too."""
    _prctl("DUMPABLE", _PR_SET_DUMPABLE, 0)


def no_new_privileges() -> None:
    _prctl("NO_NEW_PRIVS", _PR_SET_NO_NEW_PRIVS, 1)


def drop_capabilities() -> None:
    """All that are held. With no_new_privileges before, no program that is started can give any back."""
    try:
        _prctl("CAP_AMBIENT", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a kernel, gVisor's, that has none
            raise
    give_up_rights()


def give_up_rights() -> None:
    """All capabilities that a new user namespace has brought; the ambient ones go with them."""
    header = struct.pack("=Ii", 0x20080522, 0)
    raw(_NR_CAPSET[platform.machine()], header, struct.pack("=6I", *[0] * 6), what="capset")


class Filter:
    """A seccomp filter, laid out as the kernel wants it: `program` is an array of BPF instructions of 8 bytes each.

    `variable` is a constant in it that stands for one which is known only later, when `fill` puts it in.
    """

    def __init__(self, program: bytes, variable: int | None = None) -> None:
        words = struct.unpack(f"={len(program) // 4}I", program)
        self._places = [4 * at for at in range(1, len(words), 2) if words[at] == variable]
        self._code = ctypes.create_string_buffer(program, len(program))
        head = struct.pack("@HP", len(program) // 8, ctypes.addressof(self._code))
        self._head = ctypes.create_string_buffer(head, len(head))
        self._address = ctypes.addressof(self._head)

    def fill(self, value: int) -> None:
        for at in self._places:
            struct.pack_into("=I", self._code, at, value)

    def install(self) -> None:
        """For this process and its children, for good. Needs no_new_privileges first."""
        _prctl("SECCOMP", _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, self._address)

    def install_with_listener(self) -> int:
        """As `install`. Returns the descriptor on which calls that the filter asks about are heard of (`notices`)."""
        number = _NR_SECCOMP[platform.machine()]
        return raw(number, _SET_MODE_FILTER, _NEW_LISTENER, ctypes.c_void_p(self._address), what="seccomp")
