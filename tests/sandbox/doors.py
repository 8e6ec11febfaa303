"""Hostile programs that try the kernel's less known doors. Each prints ESCAPED if one opened.

`control`: who the program succeeds for without walls, which shows that it tries something real: `anybody`, `root`, or
nobody.
"""

from __future__ import annotations

from tests.sandbox.attack import THIS_KERNEL, Attack, hostile

DOORS: list[Attack] = [
    hostile(
        "descriptor_of_parent",
        """
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            watch = os.pidfd_open(os.getppid())
            if call(438, watch, 0, 0) >= 0: print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "compared_with_parent",
        """
            import ctypes, os
            call = ctypes.CDLL(None, use_errno=True).syscall
            if call(312, os.getpid(), os.getppid() or 1, 2, 0, 0) >= 0: print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "written_memory_of_parent",
        """
            import os
            os.open(f'/proc/{os.getppid() or 1}/mem', os.O_RDWR)
            print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "streams_of_parent",
        """
            import os
            print('ESCAPED', os.listdir(f'/proc/{os.getppid()}/fd'))
        """,
        control="anybody",
    ),
    hostile(
        "environment_of_parent",
        """
            import os
            print('ESCAPED', len(open(f'/proc/{os.getppid()}/environ').read()))
        """,
        control="anybody",
    ),
    hostile(
        "processors_of_others",
        """
            import os
            for p in [os.getppid(), *range(2, 4000)]:
                try:
                    if p not in (0, os.getpid()): os.sched_setaffinity(p, os.sched_getaffinity(p)); print('ESCAPED', p)
                except OSError: pass
        """,
        control="anybody",
    ),
    hostile(
        "program_in_memory",
        """
            import os
            fd = os.memfd_create('x')
            os.write(fd, open('/bin/echo', 'rb').read())
            os.execv(f'/proc/self/fd/{fd}', ['echo', 'ESCAPED'])
        """,
        control="anybody",
    ),
    hostile(
        "handle_of_file",
        """
            import ctypes, os, struct
            call = ctypes.CDLL(None, use_errno=True).syscall
            handle = ctypes.create_string_buffer(struct.pack('Ii', 120, 0), 128)
            if call(303, -100, os.getcwd().encode(), handle, ctypes.byref(ctypes.c_int()), 0) == 0: print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "watches_all_files",
        """
            import ctypes
            call = ctypes.CDLL(None, use_errno=True).syscall
            if call(300, 4, 0) >= 0: print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "watches_files",
        """
            import ctypes
            call = ctypes.CDLL(None, use_errno=True).syscall  # a user has 128 of these, with all its other processes
            if call(294, 0) >= 0 or call(253) >= 0: print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "attributes_of_mounts",
        """
            import ctypes
            call = ctypes.CDLL(None, use_errno=True).syscall
            if call(442, -100, b'/', 0, bytes(32), 32) == 0: print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "out_of_control_groups",
        """
            import glob, os
            for p in glob.glob('/sys/fs/cgroup/**/cgroup.procs', recursive=True):
                try: os.open(p, os.O_WRONLY); print('ESCAPED', p); break
                except OSError: pass
        """,
    ),
    hostile(
        "not_to_be_looked_at",
        """
            import ctypes
            if ctypes.CDLL(None, use_errno=True).prctl(4, 0, 0, 0, 0) == 0: print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "not_to_die_with_the_worker",
        """
            import ctypes
            if ctypes.CDLL(None, use_errno=True).prctl(1, 0, 0, 0, 0) == 0: print('ESCAPED')
        """,
        limited_on=["landlock"],
        control="anybody",
    ),
    hostile(
        "maps_of_memory_rewritten",
        """
            import ctypes
            libc = ctypes.CDLL(None, use_errno=True)
            size = ctypes.c_uint()
            if libc.prctl(35, 15, ctypes.byref(size), 0, 0) == 0: print('ESCAPED')  # how large its answer is
        """,
        control="anybody",
    ),
    hostile(
        "another_personality",
        """
            import ctypes
            if ctypes.CDLL(None, use_errno=True).personality(0x0040000) != -1: print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "segments",
        """
            import ctypes
            if ctypes.CDLL(None, use_errno=True).syscall(154, 0, bytes(16), 16) >= 0: print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "pages_given_to_a_pipe",
        """
            import ctypes, os, struct
            call = ctypes.CDLL(None, use_errno=True).syscall
            page = ctypes.create_string_buffer(4096)
            part = struct.pack('QQ', ctypes.addressof(page), 4096)
            if call(278, os.pipe()[1], part, 1, 8) > 0: print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "real_time",
        """
            import os
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
            print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "order_of_disk_access",
        """
            import ctypes
            if ctypes.CDLL(None, use_errno=True).syscall(251, 1, 0, 2 << 13) == 0: print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "memory_that_stays",
        """
            import ctypes
            memory = ctypes.create_string_buffer(1 << 20)
            if ctypes.CDLL(None, use_errno=True).mlock(memory, 1 << 20) == 0: print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "attributes_of_files",
        """
            import os
            open('f', 'w').close()
            os.setxattr('f', 'user.x', b'1' * 999)
            print('ESCAPED')
        """,
        control="anybody",
    ),
    hostile(
        "given_away",
        """
            import os
            open('f', 'w').close()
            os.chown('f', 12345, 12345)
            print('ESCAPED')
        """,
        control="root",
    ),
    hostile(
        "the_interpreter_itself",
        """
            import os, sys
            for path in (os.__file__, os.path.realpath(sys.executable), os.__file__ + '.left'):
                try: os.close(os.open(path, os.O_WRONLY | os.O_APPEND)); print('ESCAPED', path)
                except OSError as e: print(e)
        """,
        control="root",
    ),
    hostile(
        "devices",
        """
            import os
            plain = {'null', 'zero', 'full', 'random', 'urandom', 'stdin', 'stdout', 'stderr', 'fd', 'shm', 'core'}
            for name in {'tty', 'mem', 'kmsg', 'fuse', 'kvm', 'ptmx', *os.listdir('/dev')} - plain:
                try: os.close(os.open('/dev/' + name, os.O_RDWR | os.O_NONBLOCK | os.O_NOCTTY)); print('ESCAPED', name)
                except OSError: pass
        """,
        control="root",
    ),
    hostile(
        "keys_of_the_machine",
        """
            import os
            os.open('/proc/sysrq-trigger', os.O_WRONLY)
            print('ESCAPED')
        """,
    ),
    hostile(
        "root_of_its_own_making",
        """
            import os
            try: open('/proc/self/uid_map', 'w').write('0 1000 1')
            except OSError as e: print(e)
            try: os.setuid(0)
            except OSError as e: print(e)
            rights = [line for line in open('/proc/self/status') if line.startswith('CapEff')][0].split()[1]
            if int(rights, 16): print('ESCAPED', rights)
        """,
        control="root",
    ),
    hostile(
        "encryption_by_the_kernel",
        """
            import socket
            socket.socket(38, socket.SOCK_SEQPACKET)
            print('ESCAPED')
        """,
    ),
    hostile(
        "queues",
        """
            import ctypes
            if ctypes.CDLL(None, use_errno=True).syscall(240, b'left', 0o102, 0o600, 0) >= 0: print('ESCAPED')
        """,
    ),
    hostile(
        "huge_pages",
        """
            import mmap
            mmap.mmap(-1, 2 << 20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x40000)
            print('ESCAPED')
        """,
        limited_on=THIS_KERNEL,
    ),
]
