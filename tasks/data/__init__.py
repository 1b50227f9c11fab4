"""Data modules, one a kind of data."""
