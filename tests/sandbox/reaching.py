"""Hostile programs that reach for files, processes and networks that are not theirs. Each prints ESCAPED if it got
there.

`control`: who the program succeeds for without walls, which shows that it tries something real: `anybody`, `root`, or
nobody.
"""

from __future__ import annotations

from tests.sandbox.attack import Attack, hostile

REACHING: list[Attack] = [
    hostile(
        "file",
        "print('ESCAPED', open('/tmp/sbx-canary/secret.txt').read())",
        control="anybody",
    ),
    hostile(
        "accounts",
        "print('ESCAPED' if 'daemon' in open('/etc/passwd').read() else 'none')",
        control="anybody",
    ),
    hostile(
        "shadow_file",
        "print('ESCAPED', open('/etc/shadow').read()[:9])",
        control="root",
    ),
    hostile(
        "device_tree",
        """
            import os
            print('ESCAPED' if os.listdir('/sys') else 'empty')
        """,
        control="anybody",
    ),
    hostile(
        "kernel_log",
        "print('ESCAPED', open('/dev/kmsg').read(1))",
    ),
    hostile(
        "processes",
        """
            import os
            me = str(os.getpid())
            others = [p for p in os.listdir('/proc') if p.isdigit() and p != me]
            print('ESCAPED' if others else 'alone')
        """,
        control="anybody",
    ),
    hostile(
        "signals",
        """
            import os
            for p in [os.getppid(), *range(2, 4000)]:
                try:
                    if p not in (0, os.getpid()): os.kill(p, 0); print('ESCAPED', p)
                except OSError: pass
        """,
        control="anybody",
    ),
    hostile(
        "limits_of_others",
        """
            import os, resource
            for p in [os.getppid(), *range(2, 4000)]:
                try:
                    if p not in (0, os.getpid()):
                        resource.prlimit(p, resource.RLIMIT_NOFILE); print('ESCAPED', p)
                except OSError: pass
        """,
        control="anybody",
    ),
    hostile(
        "priority_of_others",
        """
            import os
            for p in [os.getppid(), *range(2, 4000)]:
                try:
                    if p not in (0, os.getpid()):
                        os.setpriority(os.PRIO_PROCESS, p, os.getpriority(os.PRIO_PROCESS, p)); print('ESCAPED', p)
                except OSError: pass
        """,
        control="anybody",
    ),
    hostile(
        "priority_of_all_of_a_user",
        """
            import os
            os.setpriority(os.PRIO_USER, 0, os.getpriority(os.PRIO_PROCESS, 0))
            print('ESCAPED')
        """,
        limited_on=["landlock"],
        control="anybody",
    ),
    hostile(
        "memory_of_parent",
        """
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            import struct
            parent = os.getppid()
            start = int([l for l in open(f'/proc/{parent}/maps') if '[heap]' in l][0].split('-')[0], 16)
            into = ctypes.create_string_buffer(64)
            local = struct.pack('QQ', ctypes.addressof(into), 64)
            if call(310, parent, local, 1, struct.pack('QQ', start, 64), 1, ctypes.c_long(0)) > 0: print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "root_of_first",
        """
            import os
            print('ESCAPED', os.listdir('/proc/1/root/tmp/sbx-canary'))
        """,
    ),
    hostile(
        "loopback",
        """
            import socket
            s = socket.create_connection(('127.0.0.1', 18765), 1)
            print('ESCAPED', s.recv(99))
        """,
        control="anybody",
    ),
    hostile(
        "loopback_6",
        """
            import socket
            socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
            print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "datagrams",
        """
            import socket
            s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            s.settimeout(1)
            s.sendto(b'x', ('127.0.0.1', 18766))
            print('ESCAPED', s.recv(99))
        """,
        control="anybody",
    ),
    hostile(
        "path_socket",
        """
            import socket
            s = socket.socket(socket.AF_UNIX)
            s.connect('/tmp/sbx-canary/sock')
            print('ESCAPED', s.recv(99))
        """,
        control="anybody",
    ),
    hostile(
        "abstract_socket",
        r"""
            import socket
            s = socket.socket(socket.AF_UNIX)
            s.connect('\0sbx-canary')
            print('ESCAPED', s.recv(99))
        """,
        control="anybody",
    ),
    hostile(
        "netlink",
        """
            import socket
            socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)
            print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "packets",
        """
            import socket
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
            print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "raw_socket",
        """
            import socket
            socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)
            print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "vsock",
        """
            import socket
            socket.socket(40, socket.SOCK_STREAM)
            print('ESCAPED')
        """,
    ),
    hostile(
        "descriptors",
        """
            import os
            names = set(os.listdir('/proc/self/fd'))
            print('ESCAPED', names) if len(names) > 4 else 0
        """,
    ),
    hostile(
        "workers_sockets",
        """
            import gc, socket
            for o in gc.get_objects():
                try:
                    if isinstance(o, socket.socket): o.send(b'D{}'); print('ESCAPED', o)
                except OSError: pass
        """,
    ),
    hostile(
        "left_for_the_next",
        """
            import os
            p = '/tmp/sbx-canary/left'
            os.makedirs('/tmp/sbx-canary', exist_ok=True)
            print('ESCAPED') if os.path.exists(p) else open(p, 'w').close()
        """,
        repeat=2,
        control="anybody",
    ),
    hostile(
        "left_in_modules",
        """
            import builtins, json
            if hasattr(builtins, 'left') or json.loads is len: print('ESCAPED')
            builtins.left, json.loads = 1, len
        """,
        repeat=2,
    ),
    hostile(
        "left_in_shared_folders",
        """
            import os
            for p in ('/tmp/left', '/work/left', '/dev/shm/left', '/box/left'):
                try:
                    if os.path.exists(p): print('ESCAPED', p)
                    open(p, 'w').close()
                except OSError: pass
        """,
        repeat=2,
    ),
    hostile(
        "link_as_result",
        """
            import os
            os.symlink('/tmp/sbx-canary/secret.txt', 'out.txt')
        """,
        collect=["out.txt"],
        collect_must_not_contain=["canary-file"],
    ),
    hostile(
        "linked_folder_as_result",
        """
            import os
            os.symlink('/tmp/sbx-canary', 'd')
        """,
        collect=["d/secret.txt"],
        collect_must_not_contain=["canary-file"],
    ),
    hostile(
        "hard_link_as_result",
        """
            import os
            os.link('/tmp/sbx-canary/secret.txt', 'out.txt')
        """,
        collect=["out.txt"],
        collect_must_not_contain=["canary-file"],
    ),
    hostile(
        "folder_as_result",
        """
            import os
            os.makedirs('out.txt/x')
        """,
        collect=["out.txt"],
    ),
]
