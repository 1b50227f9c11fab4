"""The local page and its JSON API: ``family serve``."""
