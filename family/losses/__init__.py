"""Answers against truth, usable without any trainer."""
