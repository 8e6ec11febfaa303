"""Recipes and suites that ship."""
