"""What runs inside a worker process: the fork server, the walls around one run, and the program in them.

The worker is started by path, as a top-level package, so nothing here imports anything but the standard library and its
own neighbours. It knows no asyncio, no pool and no verdict: it reports how a run ended, and the caller judges.
"""
