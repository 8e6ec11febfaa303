"""Which system calls a run may make: what is allowed, what is refused by name, and conditions on arguments.

All that is not named here does not exist for the run (ENOSYS), so that a newer kernel's calls are not allowed by
accident. Not allowed on purpose: memory that nobody counts (memfd, System V shared memory, message queues),
namespaces and mounts, other processes' memory, keys, io_uring, bpf, performance counters, files by handle, clocks,
priorities, inotify (of which a user has few, with all its other processes).
"""

from __future__ import annotations

from typing import NamedTuple

_ALLOWED = """
accept accept4 access alarm arch_prctl bind brk capget chdir chmod chown clock_getres clock_gettime clock_nanosleep
clone close close_range connect copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_pwait
epoll_pwait2 epoll_wait eventfd eventfd2 execve execveat exit exit_group faccessat faccessat2 fadvise64 fallocate
fchdir fchmod fchmodat fchmodat2 fchown fchownat fcntl fdatasync fgetxattr flistxattr flock fork fstat fstatfs fsync
ftruncate futex futex_waitv futimesat get_robust_list getcpu getcwd getdents getdents64 getegid geteuid getgid
getgroups getitimer getpeername getpgid getpgrp getpid getppid getpriority getrandom getresgid getresuid getrlimit
getrusage getsid getsockname getsockopt gettid gettimeofday getuid getxattr ioctl kill lchown lgetxattr link linkat
listen listxattr llistxattr lseek lstat madvise membarrier mincore mkdir mkdirat mknod mknodat mlock mlock2 mmap
mprotect mremap msync munlock munmap nanosleep newfstatat open openat openat2 pause personality pidfd_open
pidfd_send_signal pipe pipe2 poll ppoll prctl pread64 preadv preadv2 prlimit64 pselect6 pwrite64 pwritev pwritev2
read readahead readlink readlinkat readv recvfrom recvmmsg recvmsg rename renameat renameat2 restart_syscall rmdir
rseq rt_sigaction rt_sigpending rt_sigprocmask rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait
rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity sched_getparam sched_getscheduler
sched_rr_get_interval sched_setaffinity sched_yield select sendfile sendmmsg sendmsg sendto set_robust_list
set_tid_address setitimer setpgid setpriority setrlimit setsid setsockopt shutdown sigaltstack signalfd signalfd4
socket socketpair splice stat statfs statx symlink symlinkat sync sync_file_range sysinfo tee tgkill time
timer_create timer_delete timer_getoverrun timer_gettime timer_settime timerfd_create timerfd_gettime
timerfd_settime times tkill truncate umask uname unlink unlinkat utime utimensat utimes vfork wait4 waitid write
writev
"""

_REFUSED = """
acct add_key adjtimex bpf capset chroot clock_adjtime clock_settime delete_module fanotify_init fanotify_mark
finit_module fremovexattr fsconfig fsetxattr fsmount fsopen fspick init_module inotify_add_watch inotify_init
inotify_init1 inotify_rm_watch io_uring_enter io_uring_register io_uring_setup ioperm iopl ioprio_set kcmp
kexec_file_load kexec_load keyctl lremovexattr lsetxattr mbind memfd_create memfd_secret migrate_pages modify_ldt
mount mount_setattr move_mount move_pages mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedsend mq_unlink
msgctl msgget msgrcv msgsnd name_to_handle_at open_by_handle_at open_tree perf_event_open pidfd_getfd pivot_root
process_madvise process_vm_readv process_vm_writev ptrace quotactl reboot removexattr request_key sched_setattr
sched_setparam sched_setscheduler semctl semget semop semtimedop set_mempolicy setdomainname setfsgid setfsuid
setgid setgroups sethostname setns setregid setresgid setresuid setreuid settimeofday setuid setxattr shmat shmctl
shmdt shmget swapoff swapon syslog umount2 unshare userfaultfd vhangup vmsplice
"""

ALLOWED = frozenset(_ALLOWED.split())
REFUSED = frozenset(_REFUSED.split())  # EPERM, which is the truth; the rest says ENOSYS


class Only(NamedTuple):
    """The call is allowed where the lower 32 bits of an argument are one of these, and is refused with `errno` else."""

    argument: int
    values: tuple[int, ...]
    errno: int = 1


class Never(NamedTuple):
    """The call is refused where an argument is one of these."""

    argument: int
    values: tuple[int, ...]


class Bits(NamedTuple):
    """The call is refused if any of `refused` is set in argument 0, or one of `wanted` is not."""

    refused: int
    wanted: int = 0


class Also(NamedTuple):
    """As `rule`, and allowed too where argument 0 is `first` and argument 1 `second`."""

    rule: Only
    first: int
    second: int


class Ask(NamedTuple):
    """The call waits until who holds the filter's listener has said what comes of it."""


Rule = Only | Never | Bits | Also | Ask | None  # None: refused

_NAMESPACES = 0x7E020000
_THREAD = 0x00010000
_AF_UNIX = 1
_EACCES, _ENOTTY = 13, 25
_IOCTLS = (0x5401, 0x802C542A, 0x540F, 0x5413, 0x541B, 0x5421, 0x5450, 0x5451)  # terminal? size, bytes left, flags
_PRCTLS = (2, 3, 15, 16, 21, 23, 27, 29, 30, 37, 38, 39, 41, 42, 0x53564D41)  # names, timer slack, questions
_PDEATHSIG, _SET_DUMPABLE, _SUBREAPER = 1, 4, 36
_SO_SNDBUF, _SO_SNDBUFFORCE = 7, 32
_F_SETOWN, _F_SETSIG, _F_SETOWN_EX, _F_SETLEASE, _F_NOTIFY, _F_SETPIPE_SZ = 8, 10, 15, 1024, 1026, 1031

_PROGRAMS = ("fork", "vfork", "execve", "execveat")
_SOCKETS = ("socket", "connect", "bind", "listen", "sendmsg", "sendmmsg")

EVERYWHERE: dict[str, Rule] = {
    "ioctl": Only(1, _IOCTLS, _ENOTTY),
    "personality": Only(0, (0, 0xFFFFFFFF)),
    "prlimit64": Only(0, (0,)),
    "setpriority": Only(1, (0,)),
    "setsockopt": Never(2, (_SO_SNDBUF, _SO_SNDBUFFORCE)),  # the kernel's memory, which counts as nobody's
    "sched_setaffinity": Only(0, (0,)),
}


def with_namespaces(unix_sockets: bool) -> dict[str, Rule]:
    """Rules for a run that has its own process and network namespaces."""
    return EVERYWHERE | {
        "clone": Bits(refused=_NAMESPACES),
        "socket": Only(0, (_AF_UNIX,), _EACCES) if unix_sockets else None,
        "prctl": Only(0, (*_PRCTLS, _PDEATHSIG, _SUBREAPER)),
        "fcntl": Never(1, (_F_SETLEASE, _F_SETPIPE_SZ)),
    }


def with_branches(unix_sockets: bool) -> dict[str, Rule]:
    """Rules for a session that can be forked: its keeper says when a branch may have namespaces of its own.

    A branch is born with rights over them and has to be able to give those up; nobody can gain any that way.
    """
    rules = with_namespaces(unix_sockets)
    plain = rules["prctl"]
    assert isinstance(plain, Only)
    return rules | {"unshare": Ask(), "capset": Never(0, ()), "prctl": Also(plain, _SET_DUMPABLE, 1)}


def without_namespaces(pid: int) -> dict[str, Rule]:
    """Rules for a run that shares the machine's processes and network: one process, no sockets, signals to itself.

    Nor may it send descriptors: a file without a name in a socket's queue would take room that nobody could count.
    """
    signals = {"kill": Only(0, (0, pid)), "tgkill": Only(0, (pid,)), "rt_sigqueueinfo": Only(0, (pid,))}
    others = (
        "tkill",
        "rt_tgsigqueueinfo",
        "pidfd_send_signal",
        "pidfd_open",
        "getpriority",
        "setpriority",
        "sched_getscheduler",
    )
    return EVERYWHERE | {
        "clone": Bits(refused=_NAMESPACES, wanted=_THREAD),
        **signals,
        **dict.fromkeys((*_PROGRAMS, *_SOCKETS, *others), None),
        "prctl": Only(0, _PRCTLS),
        "fcntl": Never(1, (_F_SETOWN, _F_SETSIG, _F_SETOWN_EX, _F_SETLEASE, _F_NOTIFY, _F_SETPIPE_SZ)),
    }
