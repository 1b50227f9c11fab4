"""``family --print_completion bash``: what a shell needs to complete commands, their options and configs."""

from __future__ import annotations

import argparse
import importlib

from tasks.cli.configs import config_files
from tasks.commands import COMMANDS, TRAINING
from tasks.errors import UserError, closest

SHELLS = ("bash", "zsh")
SCRIPT = """{head}_family() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}" before="${{COMP_WORDS[COMP_CWORD-1]}}" options=""
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W "{commands}" -- "$word")); return
  fi
  if [ "$before" = --config ]; then
    COMPREPLY=($(compgen -W "{configs}" -- "$word") $(compgen -f -- "$word")); return
  fi
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "$word" in
    -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
    *) COMPREPLY=($(compgen -f -- "$word")) ;;
  esac
}}
complete -o filenames -F _family family
"""


class SeenError(Exception):
    """A parser, before it reads."""


def script(shell: str) -> str:
    """For ``source``: ``source <(family --print_completion bash)``.

    Raises:
        UserError: no shell that we know.
    """
    if shell not in SHELLS:
        raise UserError(f"--print_completion {shell}: give bash or zsh.{closest(shell, SHELLS)}")
    options = {name: options_of(command.module) for name, command in COMMANDS.items()}
    options |= dict.fromkeys(TRAINING, training_options())
    cases = [f'    {name}) options="{" ".join(words)}" ;;' for name, words in options.items()]
    configs = " ".join(config_files())
    return SCRIPT.format(
        head="autoload -U +X bashcompinit && bashcompinit\n" if shell == "zsh" else "",
        commands=" ".join([*TRAINING, *COMMANDS]),
        configs=configs,
        cases="\n".join(cases),
    )


def options_of(module: str) -> list[str]:
    """The options of a command, asked of its parser before it reads."""

    def stop(parser: argparse.ArgumentParser, *_: object, **__: object) -> None:
        raise SeenError(parser)

    read = argparse.ArgumentParser.parse_known_args
    argparse.ArgumentParser.parse_known_args = stop  # type: ignore[method-assign,assignment]
    try:
        importlib.import_module(f"tasks.commands.{module}").run([])
    except SeenError as seen:
        actions = seen.args[0]._actions
        return [name for action in actions for name in action.option_strings]
    finally:
        argparse.ArgumentParser.parse_known_args = read  # type: ignore[method-assign]
    return []


def training_options() -> list[str]:
    """Of fit and its kin: those that all configs have."""
    from tasks.cli.help import COMMON, SHOWN  # imports torch

    own = [option.split()[0] for option in COMMON]
    return [*own, "--help", *(f"--trainer.{name}" for name in SHOWN), "--model.lr", "--data.root"]
