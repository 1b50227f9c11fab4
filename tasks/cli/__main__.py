"""``python -m tasks.cli`` is ``family``."""

from tasks.cli.entry import main

main()
