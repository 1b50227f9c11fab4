"""How a run that did not come to its end says so: by its exit code, or in one sentence."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pytorch_lightning.utilities.exceptions import SIGTERMException

from family.files import no_room
from tasks.errors import UserError
from tasks.runs.ending import LEFT


@contextmanager
def said_by_exit(folder: Path) -> Iterator[None]:
    """Around a run: 143 where it was told to leave, 130 after Ctrl-C; Lightning has kept its state.

    Raises:
        UserError: the disk is full.
    """
    try:
        yield
    except SIGTERMException:
        sys.exit(LEFT)
    except SystemExit as error:  # Lightning's own says 1
        interrupted = isinstance(error.__context__, KeyboardInterrupt)
        sys.exit(128 + signal.SIGINT if interrupted else error.code)
    except OSError as error:
        if no_room(error) is None:
            raise
        said = f"{error.filename or folder} cannot be written: {error.strerror}. Make room"
        if (folder / "checkpoints/last.ckpt").exists():
            said += (
                f", then family resume {folder} goes on from its last checkpoint, which is whole."
            )
        else:
            said += ", or give a run_folder on another disk."
        raise UserError(said) from error
