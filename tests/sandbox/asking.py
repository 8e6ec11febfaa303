"""Hostile programs that ask the kernel for what no run should get. Each prints ESCAPED if it did.

`control`: who the program succeeds for without walls, which shows that it tries something real: `anybody`, `root`, or
nobody.
"""

from __future__ import annotations

from tests.sandbox.attack import Attack, hostile

ASKING: list[Attack] = [
    hostile(
        "user_namespace",
        """
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            if call(272, 0x10000000) == 0: print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "cloned_namespace",
        """
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            pid = call(56, 0x10000000 | 17, 0, 0, 0, 0)
            if pid == 0: os._exit(0)
            if pid > 0: print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "new_clone",
        """
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            print('ESCAPED' if call(435, 0, 0) == -1 and ctypes.get_errno() != 38 else 'absent')
        """,
    ),
    hostile(
        "other_namespace",
        """
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            print('ESCAPED' if call(308, os.open('/proc/1/ns/mnt', 0), 0) == 0 else 'no')
        """,
    ),
    hostile(
        "ring",
        """
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            p = bytes(120)
            if call(425, 4, p) >= 0: print('ESCAPED')
        """,
    ),
    hostile(
        "bpf",
        r"""
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            if call(321, 0, b'\x02' + bytes(71), 72) >= 0 or ctypes.get_errno() == 22: print('ESCAPED')
        """,
    ),
    hostile(
        "counters",
        r"""
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            a = bytearray(120)
            a[0:8] = b'\1\0\0\0\x78\0\0\0'
            if call(298, bytes(a), 0, -1, -1, 0) >= 0: print('ESCAPED')
        """,
    ),
    hostile(
        "faults",
        """
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            if call(323, 1) >= 0: print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "keys",
        """
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            if call(250, 0, -3, 1) >= 0: print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "memory_file",
        """
            import os
            os.memfd_create('x')
            print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "shared_memory",
        """
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            key = call(29, 0, 4096, 0o1600)
            if key >= 0: call(31, key, 0, 0); print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "mount_new_way",
        """
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            if call(430, b'tmpfs', 0) >= 0: print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "open_tree",
        """
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            if call(428, -100, b'/', 1) >= 0: print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "become_root",
        """
            import os
            os.setuid(0)
            print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "host_name",
        """
            import socket
            socket.sethostname('pwned')
            print('ESCAPED')
        """,
    ),
    hostile(
        "clock",
        """
            import time
            time.clock_settime(time.CLOCK_REALTIME, time.time())
            print('ESCAPED')
        """,
    ),
    hostile(
        "device",
        """
            import os, stat
            os.mknod('d', stat.S_IFCHR | 0o600, os.makedev(1, 11))
            os.open('d', 0)
            print('ESCAPED')
        """,
    ),
    hostile(
        "kernel_settings",
        """
            open('/proc/sys/kernel/core_pattern', 'a').close()
            print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "oom_rank",
        """
            import os
            os.open('/proc/self/oom_score_adj', os.O_WRONLY)
            print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "typing",
        """
            import fcntl
            for fd in range(3):
                try: fcntl.ioctl(fd, 0x5412, b'x'); print('ESCAPED')
                except OSError: pass
        """,
    ),
]
