"""Comparisons: what a model costs, and which of several is better."""
