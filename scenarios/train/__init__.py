"""Training recipes: `agentrl train NAME`."""
