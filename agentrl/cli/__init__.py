"""The command line: `agentrl COMMAND`. One file a command; nothing heavy is imported before a command needs it."""

from agentrl.cli.entry import main

__all__ = ["main"]
