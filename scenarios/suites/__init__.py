"""Evaluation suites: `agentrl eval NAME`."""
