"""The world becomes tokens."""
