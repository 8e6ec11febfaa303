"""Hostile programs that reach for what is not theirs. Each writes ESCAPED if it got it.

`control`: who the program succeeds for without walls, which shows that it tries something real: `anybody`, `root`, or nobody.
"""

from __future__ import annotations

from tests.sandbox.attack import Attack, hostile

_CALL = "import ctypes, os\ncall = ctypes.CDLL(None, use_errno=True).syscall\n"

REACHING: list[Attack] = [
    hostile("file", "print('ESCAPED', open('/tmp/sbx-canary/secret.txt').read())", control="anybody"),
    hostile("accounts", "print('ESCAPED' if 'daemon' in open('/etc/passwd').read() else 'none')", control="anybody"),
    hostile("shadow_file", "print('ESCAPED', open('/etc/shadow').read()[:9])", control="root"),
    hostile("device_tree", "import os\nprint('ESCAPED' if os.listdir('/sys') else 'empty')", control="anybody"),
    hostile("kernel_log", "print('ESCAPED', open('/dev/kmsg').read(1))"),
    hostile(
        "processes",
        "import os\nme = str(os.getpid())\nothers = [p for p in os.listdir('/proc') if p.isdigit() and p != me]\n"
        "print('ESCAPED' if others else 'alone')",
        control="anybody",
    ),
    hostile(
        "signals",
        "import os\nfor p in range(2, 4000):\n    try:\n        if p != os.getpid(): os.kill(p, 0); print('ESCAPED', p)\n"
        "    except OSError: pass",
        control="anybody",
    ),
    hostile(
        "limits_of_others",
        "import os, resource\nfor p in range(2, 4000):\n    try:\n        if p != os.getpid():\n"
        "            resource.prlimit(p, resource.RLIMIT_NOFILE); print('ESCAPED', p)\n    except OSError: pass",
        control="anybody",
    ),
    hostile(
        "priority_of_others",
        "import os\nfor p in range(2, 4000):\n    try:\n        if p != os.getpid():\n"
        "            os.setpriority(os.PRIO_PROCESS, p, os.getpriority(os.PRIO_PROCESS, p)); print('ESCAPED', p)\n"
        "    except OSError: pass",
        control="anybody",
    ),
    hostile(
        "memory_of_parent",
        _CALL + "import struct\nparent = os.getppid()\n"
        "start = int([l for l in open(f'/proc/{parent}/maps') if '[heap]' in l][0].split('-')[0], 16)\n"
        "into = ctypes.create_string_buffer(64)\nlocal = struct.pack('QQ', ctypes.addressof(into), 64)\n"
        "if call(310, parent, local, 1, struct.pack('QQ', start, 64), 1, ctypes.c_long(0)) > 0: print('ESCAPED')",
        control="anybody",
    ),
    hostile("root_of_first", "import os\nprint('ESCAPED', os.listdir('/proc/1/root/tmp/sbx-canary'))"),
    hostile(
        "loopback",
        "import socket\ns = socket.create_connection(('127.0.0.1', 18765), 1)\nprint('ESCAPED', s.recv(99))",
        control="anybody",
    ),
    hostile(
        "loopback_6", "import socket\nsocket.socket(socket.AF_INET6, socket.SOCK_DGRAM)\nprint('ESCAPED')",
        control="anybody",
    ),
    hostile(
        "datagrams",
        "import socket\ns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\ns.settimeout(1)\n"
        "s.sendto(b'x', ('127.0.0.1', 18766))\nprint('ESCAPED', s.recv(99))",
        control="anybody",
    ),
    hostile(
        "path_socket",
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('/tmp/sbx-canary/sock')\nprint('ESCAPED', s.recv(99))",
        control="anybody",
    ),
    hostile(
        "abstract_socket",
        "import socket\ns = socket.socket(socket.AF_UNIX)\ns.connect('\\0sbx-canary')\nprint('ESCAPED', s.recv(99))",
        control="anybody",
    ),
    hostile("netlink", "import socket\nsocket.socket(socket.AF_NETLINK, socket.SOCK_RAW)\nprint('ESCAPED')", control="anybody"),
    hostile("packets", "import socket\nsocket.socket(socket.AF_PACKET, socket.SOCK_RAW)\nprint('ESCAPED')", control="root"),
    hostile("raw_socket", "import socket\nsocket.socket(socket.AF_INET, socket.SOCK_RAW, 1)\nprint('ESCAPED')", control="root"),
    hostile("vsock", "import socket\nsocket.socket(40, socket.SOCK_STREAM)\nprint('ESCAPED')"),
    hostile("user_namespace", _CALL + "if call(272, 0x10000000) == 0: print('ESCAPED')", control="anybody"),
    hostile(
        "cloned_namespace",
        _CALL + "pid = call(56, 0x10000000 | 17, 0, 0, 0, 0)\nif pid == 0: os._exit(0)\nif pid > 0: print('ESCAPED')",
        control="anybody",
    ),
    hostile("new_clone", _CALL + "print('ESCAPED' if call(435, 0, 0) == -1 and ctypes.get_errno() != 38 else 'absent')"),
    hostile("other_namespace", _CALL + "print('ESCAPED' if call(308, os.open('/proc/1/ns/mnt', 0), 0) == 0 else 'no')"),
    hostile("ring", _CALL + "p = bytes(120)\nif call(425, 4, p) >= 0: print('ESCAPED')"),
    hostile("bpf", _CALL + "if call(321, 0, b'\\x02' + bytes(71), 72) >= 0 or ctypes.get_errno() == 22: print('ESCAPED')"),
    hostile("counters", _CALL + "a = bytearray(120)\na[0:8] = b'\\1\\0\\0\\0\\x78\\0\\0\\0'\n"
            "if call(298, bytes(a), 0, -1, -1, 0) >= 0: print('ESCAPED')"),
    hostile("faults", _CALL + "if call(323, 1) >= 0: print('ESCAPED')", control="anybody"),
    hostile("keys", _CALL + "if call(250, 0, -3, 1) >= 0: print('ESCAPED')", control="anybody"),
    hostile("memory_file", "import os\nos.memfd_create('x')\nprint('ESCAPED')", control="anybody"),
    hostile(
        "shared_memory", _CALL + "key = call(29, 0, 4096, 0o1600)\nif key >= 0: call(31, key, 0, 0); print('ESCAPED')",
        control="anybody",
    ),
    hostile("mount_new_way", _CALL + "if call(430, b'tmpfs', 0) >= 0: print('ESCAPED')", control="root"),
    hostile("open_tree", _CALL + "if call(428, -100, b'/', 1) >= 0: print('ESCAPED')", control="root"),
    hostile("become_root", "import os\nos.setuid(0)\nprint('ESCAPED')", control="root"),
    hostile("host_name", "import socket\nsocket.sethostname('pwned')\nprint('ESCAPED')"),
    hostile("clock", "import time\ntime.clock_settime(time.CLOCK_REALTIME, time.time())\nprint('ESCAPED')"),
    hostile(
        "device", "import os, stat\nos.mknod('d', stat.S_IFCHR | 0o600, os.makedev(1, 11))\nos.open('d', 0)\nprint('ESCAPED')",
    ),
    hostile("kernel_settings", "open('/proc/sys/kernel/core_pattern', 'a').close()\nprint('ESCAPED')", control="root"),
    hostile("oom_rank", "import os\nos.open('/proc/self/oom_score_adj', os.O_WRONLY)\nprint('ESCAPED')", control="anybody"),
    hostile("typing", "import fcntl\nfor fd in range(3):\n    try: fcntl.ioctl(fd, 0x5412, b'x'); print('ESCAPED')\n"
            "    except OSError: pass"),
    hostile("descriptors", "import os\nnames = set(os.listdir('/proc/self/fd'))\nprint('ESCAPED', names) if len(names) > 4 else 0"),
    hostile(
        "workers_sockets",
        "import gc, socket\nfor o in gc.get_objects():\n    try:\n        if isinstance(o, socket.socket): o.send(b'D{}');"
        " print('ESCAPED', o)\n    except OSError: pass",
    ),
    hostile(
        "left_for_the_next",
        "import os\np = '/tmp/sbx-canary/left'\nos.makedirs('/tmp/sbx-canary', exist_ok=True)\n"
        "print('ESCAPED') if os.path.exists(p) else open(p, 'w').close()",
        repeat=2, control="anybody",
    ),
    hostile(
        "left_in_modules",
        "import builtins, json\nif hasattr(builtins, 'left') or json.loads is len: print('ESCAPED')\n"
        "builtins.left, json.loads = 1, len",
        repeat=2,
    ),
    hostile(
        "left_in_shared_folders",
        "import os\nfor p in ('/tmp/left', '/work/left', '/dev/shm/left', '/box/left'):\n    try:\n"
        "        if os.path.exists(p): print('ESCAPED', p)\n        open(p, 'w').close()\n    except OSError: pass",
        repeat=2,
    ),
    hostile(
        "link_as_result", "import os\nos.symlink('/tmp/sbx-canary/secret.txt', 'out.txt')", collect=["out.txt"],
        collect_must_not_contain=["canary-file"],
    ),
    hostile(
        "linked_folder_as_result", "import os\nos.symlink('/tmp/sbx-canary', 'd')", collect=["d/secret.txt"],
        collect_must_not_contain=["canary-file"],
    ),
    hostile(
        "hard_link_as_result", "import os\nos.link('/tmp/sbx-canary/secret.txt', 'out.txt')", collect=["out.txt"],
        collect_must_not_contain=["canary-file"],
    ),
    hostile("folder_as_result", "import os\nos.makedirs('out.txt/x')", collect=["out.txt"]),
]  # fmt: skip
