"""Where ``family`` begins: it imports what the command that was named needs, and no more."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import os
import select
import signal
import sys

from family.files import no_room
from tasks.commands import COMMANDS, TRAINING
from tasks.errors import UserError, closest

HEAD = """Train and use the Transformer family.

  family fit --config TASK/NAME    trains (family list names the configs)
  family COMMAND --help            says more of a command
  family resume RUN                goes on, to the bit, with a run that was cut

  source <(family --print_completion bash)    lets the shell complete all this (or zsh)

Told to end by SIGTERM, training keeps its last state after the batch at work, and exits with 143.
"""


LONGEST = 200
"""Characters of a file's name that a message quotes."""


def main(arguments: list[str] | None = None) -> None:
    """Run ``family COMMAND ...``.

    A user's mistake, or a full disk, prints one sentence and exits with 2; SIGTERM, after training has kept its
    last state, with 143, Ctrl-C with 130.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    arguments = [at_home(argument) for argument in arguments]
    # PyTorch's compiler says in the midst of a text that there is no GPU, where CUDA's tools are installed.
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)
    try:
        dispatch(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    except BrokenPipeError:
        if stdout_is_open():
            raise  # another pipe, such as a worker's
        # Who read it has seen enough, as `head`; nothing is left to be said at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except OSError as error:
        number = no_room(error)
        if number is None and error.filename is None:
            raise  # of no file that somebody named
        print(f"family: {sentence(error, number)}", file=sys.stderr)
        sys.exit(2)
    except MemoryError:
        print("family: there is not enough memory for sizes such as these.", file=sys.stderr)
        sys.exit(2)
    except UserError as error:
        # A worker of a data loader sends its traceback along; the sentence is at the end.
        said = str(error).strip().splitlines()[-1].removeprefix("tasks.errors.UserError: ")
        print(f"family: {said}", file=sys.stderr)
        sys.exit(2)


def at_home(argument: str) -> str:
    """``--option=~/x`` as ``--option ~/x``, in which a shell would put the home folder."""
    option, sign, value = argument.partition("=")
    known = sign and option.startswith("--") and value.startswith("~/")
    return f"{option}={os.path.expanduser(value)}" if known else argument


def sentence(error: OSError, number: int | None) -> str:
    """What the system says of a file; ``number`` of an error where there is no room for it."""
    name = str(error.filename or "what was to be written")
    name = name if len(name) <= LONGEST else f"{name[:LONGEST]}..."
    if number is None:
        return f"{name!r} cannot be used: {error.strerror}."
    return f"{name} cannot be written: {os.strerror(number)}. Make room, or write to another disk."


def stdout_is_open() -> bool:
    """Whether somebody reads what is printed."""
    place = select.poll()
    place.register(sys.stdout.fileno(), 0)
    return not any(events & (select.POLLERR | select.POLLHUP) for _, events in place.poll(0))


def dispatch(arguments: list[str]) -> None:
    """Hand the arguments to the command's module.

    Raises:
        UserError: there is no such command, or what the command refuses.
    """
    first = arguments[0] if arguments else "--help"
    if first in ("--help", "-h", "help"):
        print(overview())
    elif first == "--version":
        print(importlib.metadata.version("transformer-family"))
    elif first == "--print_completion":
        from tasks.cli.completion import script

        sys.stdout.write(script(" ".join(arguments[1:2])))
    elif first in COMMANDS:
        importlib.import_module(f"tasks.commands.{COMMANDS[first].module}").run(arguments[1:])
    elif first in TRAINING:
        importlib.import_module("tasks.cli.app").run(arguments)
    else:
        hint = closest(first, [*TRAINING, *COMMANDS]) or " family --help names them."
        raise UserError(f"there is no command {first!r}.{hint}")


def overview() -> str:
    """All commands, a line each."""
    lines = [HEAD, "Training:"]
    lines += [f"  {name:11} {says}" for name, says in TRAINING.items()]
    lines += ["", "Use of what was trained or published, and more:"]
    lines += [f"  {name:11} {command.says}" for name, command in COMMANDS.items()]
    return "\n".join(lines)
