"""Tokens become answers."""
