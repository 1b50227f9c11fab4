"""``family serve SOURCE [SOURCE ...]``: a local page to use models with, its JSON API, and OpenAI's."""

from __future__ import annotations

import argparse
import ipaddress
import logging
import os
import socket
import sys
from contextlib import suppress

from tasks.commands.examples import command_parser
from tasks.commands.running import model_options, open_model
from tasks.errors import UserError, at_least, between
from tasks.serve.limits import Limits
from tasks.serve.served import actions_of, named

USUAL = Limits()


def run(arguments: list[str]) -> None:
    """Serve until Ctrl-C."""
    options = parser().parse_args(arguments)
    between(0, 65535, of="--", port=options.port)
    at_least(1, of="--", max_batch=options.max_batch, max_queue=options.max_queue)
    at_least(1, of="--", max_new_tokens=options.max_new_tokens)
    try:
        import uvicorn

        from tasks.serve.app import make_app
    except ImportError as error:
        raise UserError(
            f"family serve needs {error.name}: pip install 'transformer-family[serve]'."
        ) from None
    place = listen(options.host, options.port)
    with place:
        models = {}
        for name, source in zip(named(options.sources), options.sources, strict=True):
            models[name] = open_model(source, options)
            actions_of(models[name])
        limits = Limits(
            batch=options.max_batch, queue=options.max_queue, new_tokens=options.max_new_tokens
        )
        app = make_app(models, limits, options.host)
        host, port = place.getsockname()[:2]
        if not is_loopback(host):
            print(
                f"family serve listens at {host}, so whoever reaches this machine may use the models: there "
                "is no password.",
                file=sys.stderr,
            )
        shown = f"[{host}]" if ":" in host else host
        print(f"http://{shown}:{port} serves {', '.join(models)}; Ctrl-C ends it.", flush=True)
        logging.basicConfig(level=logging.WARNING)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            limit_concurrency=1000,
            timeout_graceful_shutdown=5,
        )
        with suppress(KeyboardInterrupt):  # which it raises anew once all is closed
            uvicorn.Server(config).run(sockets=[place])


def parser() -> argparse.ArgumentParser:
    """What the command takes."""
    made = command_parser(
        "serve",
        __doc__,
        "family serve runs/translation runs/detection",
        "family serve RUN --port 8080 --device cuda",
    )
    made.add_argument(
        "sources",
        nargs="+",
        metavar="SOURCE",
        help="a .ckpt file, the folder of a run, or a published model",
    )
    made.add_argument(
        "--host",
        default="127.0.0.1",
        help="where to listen (default: 127.0.0.1, this machine alone)",
    )
    made.add_argument(
        "--port", type=int, default=8000, help="0 is any that is free (default: 8000)"
    )
    made.add_argument(
        "--max_batch",
        type=int,
        default=USUAL.batch,
        help=f"inputs that run together, and texts that grow together (default: {USUAL.batch})",
    )
    made.add_argument(
        "--max_queue",
        type=int,
        default=USUAL.queue,
        help=f"requests that may wait for a model; others are refused (default: {USUAL.queue})",
    )
    made.add_argument(
        "--max_new_tokens",
        type=int,
        default=USUAL.new_tokens,
        help=f"of a text that is generated, at most (default: {USUAL.new_tokens})",
    )
    model_options(made, None)
    return made


def listen(host: str, port: int) -> socket.socket:
    """A socket at an address, before models are read.

    Raises:
        UserError: the port is in use, or there is no such address here.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        kind, _, _, _, address = found[0]
    except (OSError, UnicodeError):
        raise UserError(f"--host {host} is no address of this machine.") from None
    place = socket.socket(kind, socket.SOCK_STREAM)
    try:
        if os.name == "posix":  # an address that was just left may be taken again
            place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        place.bind(address)
        place.listen(512)
    except OSError as error:
        place.close()
        raise UserError(
            f"--port {port} at {host} cannot be listened at: {error.strerror or error}; give another --port, "
            "or 0 for any."
        ) from None
    return place


def is_loopback(host: str) -> bool:
    return ipaddress.ip_address(host.partition("%")[0]).is_loopback
