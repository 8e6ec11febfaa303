"""One tree of settings: TOML and dotted overrides in, a checked `Recipe` out, and back to TOML."""

from agentrl.config.checks import check_recipe
from agentrl.config.recipes import dump_recipe, load_recipe, read_recipe
from agentrl.config.resume import resume_recipe

__all__ = ["check_recipe", "dump_recipe", "load_recipe", "read_recipe", "resume_recipe"]
