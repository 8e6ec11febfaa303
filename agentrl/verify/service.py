"""The thread that owns the workers: who computes what, until when, and what comes of it.

What comes in, from any thread: pairs of LaTeX texts. What goes out: a future for each. Knows nothing of the rules
that judge without a worker.

One thread owns the processes, all deadlines and the queue's end; callers only append to the queue and wait on futures,
so an event loop, a thread and a script use it alike. A deadline runs from the moment when a worker has the job. At the
deadline the worker is killed and replaced. Only a check that had its CPU time counts as a time-out: one that a busy
machine starved goes on for a while, and is then the machine's failure.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass

from agentrl.errors import VerifierFailure, described
from agentrl.verify.crew import Crew, Worker
from agentrl.verify.queue import Found, Job, Queue

START_LIMIT_S = 120.0
FAIR_SHARE = 0.25  # of its time limit: with less CPU time than this, a check was starved
SURE_SHARE = 0.6  # with more than this, it would not end at another time either
EXTENSIONS = 3  # each as long as the limit
JOBS_OF_ONE_WORKER = 500  # sympy's caches grow
RSS_GROWN_MB = 400
ATTEMPTS = 2
RESTARTS = 3  # of the fork server, without a job done in between


@dataclass(frozen=True, slots=True)
class ServiceSettings:
    limit_s: float
    workers: int
    memory_mb: int
    max_waiting: int


class Service:
    """Starts its thread at once and its processes with the first job."""

    def __init__(self, settings: ServiceSettings) -> None:
        self._settings = settings
        self._crew = Crew(settings.memory_mb, settings.limit_s)
        self._queue = Queue(settings.max_waiting)
        self._running: dict[Worker, Job] = {}
        self._stopping = False
        self._ready = False
        self._restarts = 0
        self._start_deadline = 0.0
        self._selector = selectors.DefaultSelector()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._pid = os.getpid()
        self._thread = threading.Thread(target=self._main, name="agentrl-verify", daemon=True)
        self._thread.start()

    # What callers use, from any thread

    def submit(self, gold: str, answer: str) -> tuple[Future[Found] | None, Future[None] | None]:
        """As `Queue.submit`."""
        futures = self._queue.submit(gold, answer)
        self._wake()
        return futures

    def worker_pids(self) -> list[int]:
        """Process ids of the workers that have started."""
        return [worker.pid for worker in list(self._crew.workers) if worker.pid is not None]

    def stop(self) -> None:
        """End everything; what waits fails. Returns when all processes are gone. May be called again."""
        if os.getpid() != self._pid:
            return
        self._stopping = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def abandon(self) -> None:
        """In a forked child: the thread and the processes are the parent's; only close what was inherited."""
        self._crew.abandon()
        for end in (self._waker, self._woken):
            end.close()
        self._selector.close()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            self._waker.send(b"w")

    # The thread

    def _main(self) -> None:
        try:
            while not self._stopping:
                self._turn()
            self._queue.fail_all("the verifier was closed", close=True)
        except BaseException as error:
            self._queue.fail_all(f"the verifier's thread broke: {described(error)}", close=True)
            raise
        finally:
            self._crew.stop()
            self._selector.close()
            self._waker.close()
            self._woken.close()

    def _turn(self) -> None:
        for key, _ in self._selector.select(self._next_event_s()):
            if key.fileobj is self._woken:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(65536)
            elif key.data in self._crew.workers:
                self._hear_worker(key.data)
            elif self._crew.control is not None and key.fileobj is self._crew.control.socket:
                self._hear_server()
        self._look_at_clock()
        self._start_server()
        self._hand_out()
        self._queue.grant_room()

    def _next_event_s(self) -> float | None:
        soonest = [job.deadline for job in self._running.values()]
        if self._crew.control is not None and not self._ready:
            soonest.append(self._start_deadline)
        if self._queue.callers_without_room:
            soonest.append(time.monotonic() + 0.5)
        return max(0.0, min(soonest) - time.monotonic()) if soonest else None

    def _start_server(self) -> None:
        if self._crew.control is None and self._queue:
            try:
                line = self._crew.start()
            except VerifierFailure as error:
                self._queue.fail_all(str(error))
                return
            self._selector.register(line.socket, selectors.EVENT_READ)
            self._start_deadline = time.monotonic() + START_LIMIT_S

    def _hear_server(self) -> None:
        assert self._crew.control is not None
        messages = self._crew.control.read()
        if messages is None:
            self._server_is_gone()
            return
        for message in messages:
            if message.get("ready"):
                self._ready = True
                self._crew.warm()
                self._fill_up()
            elif "missing" in message:
                self._drop_server()
                self._queue.fail_all(message["missing"], missing=True)
            elif "failed" in message:
                self._drop_server()
                self._queue.fail_all(f"math-verify does not start: {message['failed']}")

    def _server_is_gone(self) -> None:
        running = list(self._running.values())
        self._drop_server()
        self._restarts += 1
        for job in running:
            self._again_or_fail(job)
        if self._restarts > RESTARTS:
            self._restarts = 0
            self._queue.fail_all("the fork server of the checking processes ends again and again")

    def _drop_server(self) -> None:
        for worker in self._crew.workers:
            self._selector.unregister(worker.line.socket)
        if self._crew.control is not None:
            self._selector.unregister(self._crew.control.socket)
        self._running.clear()
        self._ready = False
        self._crew.stop()

    def _fill_up(self) -> None:
        while self._ready and len(self._crew.workers) < self._settings.workers:
            worker = self._crew.hire()
            if worker is None:
                self._server_is_gone()
                return
            self._selector.register(worker.line.socket, selectors.EVENT_READ, worker)

    def _let_go(self, worker: Worker, *, kill: bool) -> None:
        self._running.pop(worker, None)
        self._selector.unregister(worker.line.socket)
        self._crew.dismiss(worker, kill=kill)
        self._fill_up()

    def _hear_worker(self, worker: Worker) -> None:
        messages = worker.line.read()
        job = self._running.get(worker)
        if messages is None:
            self._let_go(worker, kill=True)
            if job is not None:
                self._again_or_fail(job)
            return
        for message in messages:
            if "pid" in message:
                worker.pid = message["pid"]
            elif job is not None and "phase" in message:
                job.gold_read = True
            elif job is not None:
                worker.done += 1
                self._restarts = 0
                del self._running[worker]
                self._queue.finish(job, Found(message["verdict"], message["reason"]))
                if worker.done >= JOBS_OF_ONE_WORKER or message["rss_mb"] > RSS_GROWN_MB:
                    self._let_go(worker, kill=False)

    def _look_at_clock(self) -> None:
        now = time.monotonic()
        if self._crew.control is not None and not self._ready and now >= self._start_deadline:
            self._drop_server()
            self._queue.fail_all(f"math-verify was not loaded within {START_LIMIT_S:g} s")
        for worker, job in list(self._running.items()):
            if worker in self._running and now >= job.deadline:
                self._too_late(worker, job)

    def _too_late(self, worker: Worker, job: Job) -> None:
        limit_s, after = self._settings.limit_s, worker.cpu_s()
        used = None if after is None or job.cpu_before is None else after - job.cpu_before
        share = FAIR_SHARE if job.gold_read else SURE_SHARE  # to call a task broken, be sure
        starved = used is not None and used < share * limit_s
        if starved and job.extensions < EXTENSIONS:
            job.extensions += 1
            job.deadline = time.monotonic() + limit_s  # not from the old one: all of it may be over after a stall
            return
        self._let_go(worker, kill=True)
        if starved:
            seconds = (1 + EXTENSIONS) * limit_s
            self._queue.fail(job, f"a check had {used:.2f} s of CPU time in {seconds:g} s: the machine is too busy")
            return
        sure = used is not None and used >= SURE_SHARE * limit_s
        if not job.gold_read and used is None:  # nobody knows whether the task or the machine is at fault
            self._queue.fail(job, f"a gold answer was not read within {limit_s:g} s")
        elif job.gold_read:
            self._queue.finish(job, Found("timeout", f"no result within {limit_s:g} s", sure))
        else:
            self._queue.finish(job, Found("gold", f"it was not read within {limit_s:g} s", sure))

    def _hand_out(self) -> None:
        for worker in list(self._crew.workers):
            if worker.pid is None or worker in self._running or worker not in self._crew.workers:
                continue
            job = self._queue.next()
            if job is None:
                return
            job.attempts += 1
            job.gold_read, job.extensions = False, 0
            job.cpu_before = worker.cpu_s()
            job.deadline = time.monotonic() + self._settings.limit_s
            self._running[worker] = job
            if not worker.line.write({"gold": job.gold, "answer": job.answer}):
                self._let_go(worker, kill=True)
                self._again_or_fail(job)

    def _again_or_fail(self, job: Job) -> None:
        if job.attempts < ATTEMPTS:
            self._queue.put_back(job)
        else:
            self._queue.fail(job, f"the checking process died {job.attempts} times over one answer")
