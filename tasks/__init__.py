"""The training of the family: tasks, data and the ``family`` command."""
