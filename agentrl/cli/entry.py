"""The way in: arguments to a command, and its errors to one line and an exit code.

Exit codes: 0 done; 1 the run stopped itself or a check failed; 2 the user's to mend; 130 stopped by Ctrl-C or
SIGTERM. Errors that nobody foresaw keep their traceback.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType

from agentrl.cli.output import check_target
from agentrl.cli.parser import make_parser
from agentrl.errors import BoundaryError, RunStoppedError, SyncError, UserError

_FULL = (errno.ENOSPC, errno.EDQUOT)  # the disk, or the user's share of it


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code."""
    parser = make_parser()
    arguments = parser.parse_args(argv)
    if arguments.command is None:
        parser.print_help()
        return 2
    before = signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        check_target(arguments.json)
        return int(arguments.command(arguments))
    except UserError as error:
        return _fail(error, 2)
    except (RunStoppedError, SyncError, BoundaryError) as error:
        return _fail(error, 1)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that the flush at exit is quiet as well
        return 141
    except OSError as error:
        if error.filename is None and error.errno not in _FULL:
            raise
        return _fail(f"{error.filename or 'a file could not be written'}: {error.strerror}", 1)
    finally:
        signal.signal(signal.SIGTERM, before)


def _fail(error: Exception | str, code: int) -> int:
    print("error: " + " ".join(str(error).split()), file=sys.stderr)
    return code


def _as_interrupt(number: int, frame: FrameType | None) -> None:
    """Treat SIGTERM as Ctrl-C: whoever handles that now, such as asyncio's cancelling, handles this."""
    handler = signal.getsignal(signal.SIGINT)
    if not callable(handler):
        raise KeyboardInterrupt
    handler(signal.SIGINT, frame)
