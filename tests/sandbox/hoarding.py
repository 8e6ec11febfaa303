"""Hostile and faulty programs that hold on to what is not counted as memory, or end with something odd in their hands.
Each prints ESCAPED if it got more of it than any run should."""

from __future__ import annotations

from tests.sandbox.attack import THIS_KERNEL, Attack, hostile

_NAMELESS = "    for _ in range(6): os.write(fd, bytes(1 << 20))\n"  # 40 times 6 MiB: several times the limit of disk
_STAYS = "time.sleep(2)\nprint('ESCAPED')"


def _nameless(name: str, head: str, each: str, tail: str = "") -> Attack:
    """Files that no folder has any more. With a disk in memory there is no room for them; else they are counted."""
    code = f"import ctypes, os, socket, time\n{head}\nfor n in range(40):\n    {each}\n{_NAMELESS}{tail}{_STAYS}"
    return hostile(name, code, status=["error"])


_UNLINKED = "fd = os.open(f'f{n}', os.O_CREAT | os.O_RDWR); os.unlink(f'f{n}')"

HOARDING: list[Attack] = [
    _nameless("unlinked_files", "", _UNLINKED),
    _nameless("files_without_a_name", "", "fd = os.open('.', os.O_TMPFILE | os.O_RDWR)"),
    _nameless(
        "replaced_files", "", "fd = os.open('f', os.O_CREAT | os.O_RDWR); open('g', 'w').close(); os.rename('g', 'f')"
    ),
    _nameless(
        "mapped_files",
        "c = ctypes.CDLL(None); c.mmap.restype = ctypes.c_void_p",
        _UNLINKED,
        "    c.mmap(None, 4096, 1, 1, fd, 0); os.close(fd)\n",
    ),
    _nameless(
        "sent_files", "a, b = socket.socketpair()", _UNLINKED, "    socket.send_fds(a, [b'x'], [fd]); os.close(fd)\n"
    ),
    hostile(
        "files_of_a_thread",
        """
            import ctypes, os, threading, time
            def hold():
                ctypes.CDLL(None).syscall(436, 1000, 1001, 2)  # a table of descriptors of its own
                for n in range(40):
                    fd = os.open(f'f{n}', os.O_CREAT | os.O_RDWR); os.unlink(f'f{n}')
                    for _ in range(6): os.write(fd, bytes(1 << 20))
                time.sleep(2)
                print('ESCAPED')
            threading.Thread(target=hold).start()
            time.sleep(2.5)
        """,
    ),
    hostile(
        "timers",
        """
            import ctypes
            c, n = ctypes.CDLL(None, use_errno=True), 0
            while n < 10**5 and c.syscall(222, 1, None, ctypes.byref(ctypes.c_int())) == 0: n += 1
            print('ESCAPED' if n >= 10**5 else n)
        """,
        status=["ok"],
        limited_on=THIS_KERNEL,
    ),
    hostile(
        "descriptors_in_sockets",
        """
            import socket
            pairs, n = [socket.socketpair() for _ in range(50)], 0
            for a, b in pairs:
                a.setblocking(False)
                try:
                    while n < 10**5: socket.send_fds(a, [b'x'], [0] * 250); n += 250
                except OSError: pass
            print('ESCAPED' if n >= 10**5 else n)
        """,
        status=["ok"],
        limited_on=THIS_KERNEL,
    ),
    hostile(
        "names_that_are_not_there",
        """
            import os
            for n in range(10**6): os.path.exists(f'/work/{n:0200}')
        """,
        status=["ok", "timeout"],
    ),
    hostile(
        "storm_of_signals",
        """
            import signal
            signal.signal(signal.SIGALRM, lambda *a: None)
            signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)
            while True: pass
        """,
        status=["timeout"],
    ),
    hostile(
        "list_of_locks_that_is_none",
        """
            import ctypes
            ctypes.CDLL(None).syscall(273, 0x1000, 24)
            print('done')
        """,
        status=["ok"],
    ),
    hostile(
        "stops_its_group",
        """
            import os, signal
            os.kill(0, signal.SIGSTOP)
            print('end')
        """,
    ),
    hostile(
        "signals_to_all",
        """
            import os, signal
            for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
                try: os.kill(-1, number)
                except OSError as e: print(e)
        """,
        no_leftover=True,
    ),
    hostile(
        "long_command",
        """
            import os
            os.execv('/bin/true', ['true', *['x' * 100_000] * 40])
        """,
        status=["error", "memory"],
    ),
    hostile(
        "allocated_and_not_written",
        """
            import os
            fd = os.open('f', os.O_CREAT | os.O_RDWR)
            try: os.posix_fallocate(fd, 0, 10 << 30); print('ESCAPED')
            except OSError as e: print(e)
        """,
    ),
    hostile(
        "a_full_device",
        """
            with open('/dev/full', 'wb', buffering=0) as f: f.write(b'x')
            print('ESCAPED')
        """,
        status=["error"],
    ),
    hostile(
        "deep_folder_as_result",
        """
            import os
            for _ in range(300): os.mkdir('d' * 50); os.chdir('d' * 50)
            open('out.txt', 'w').write('deep')
        """,
        collect=["out.txt", "/".join(["d" * 50] * 300 + ["out.txt"])],
        status=["ok", "error"],
    ),
    hostile(
        "socket_as_result",
        """
            import os, stat
            try: os.mknod('out.txt', stat.S_IFSOCK | 0o600)
            except OSError: pass
        """,
        collect=["out.txt"],
    ),
    hostile(
        "unreadable_result",
        """
            import os
            open('out.txt', 'w').write('x')
            os.chmod('out.txt', 0)
            os.chmod('.', 0)
        """,
        collect=["out.txt"],
        status=["ok"],
    ),
    hostile(
        "growing_result",
        """
            import os
            fd = os.open('out.txt', os.O_CREAT | os.O_RDWR)
            os.truncate(fd, 60 << 20)
        """,
        collect=["out.txt"],
        supervisor_rss_mb=100,
    ),
    hostile(
        "names_of_bytes",
        r"""
            import os
            for n in range(1, 256):
                if n not in (46, 47): os.close(os.open(bytes([n]), os.O_CREAT))
            os.mkdir(b'\xff\n\x1b[2J')
        """,
        status=["ok"],
    ),
    hostile(
        "exit_code_over_255",
        "raise SystemExit(257)",
        status=["error"],
        exit_code=1,
    ),
    hostile(
        "exit_code_below_0",
        """
            import os
            os._exit(-1)
        """,
        status=["error"],
        exit_code=255,
    ),
    hostile(
        "exit_codes_of_the_harness",
        "raise SystemExit(137)",
        status=["memory", "error"],
        exit_code=137,
    ),
]
