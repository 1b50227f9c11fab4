"""``family push RUN OWNER/NAME``: a run, or a folder of ``family hand_on``, to the Hugging Face hub."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from tasks.commands.examples import command_parser
from tasks.errors import UserError

NAME = re.compile(r"[\w.-]+/[\w.-]+")


def run(arguments: list[str]) -> None:
    """Upload it, and print where it is."""
    parser = command_parser(
        "push",
        __doc__,
        "family push runs/RUN OWNER/NAME --private",
        "family push FOLDER OWNER/NAME",
        more="The token is that of huggingface-cli login, or HF_TOKEN; another hub is HF_ENDPOINT.",
    )
    parser.add_argument("source", type=Path, help="the folder of a run, or one of family hand_on")
    parser.add_argument("repo", help="OWNER/NAME on the hub; made if need be")
    parser.add_argument(
        "--private", action="store_true", help="a new repository is not shown to others"
    )
    options = parser.parse_args(arguments)
    if not NAME.fullmatch(options.repo):
        raise UserError(f"{options.repo!r} is no name on the hub: give OWNER/NAME.")
    from tasks.commands.hand_on import hand_on, is_handed_on

    token()
    if is_handed_on(options.source):
        print(push(options.source, options.repo, options.private))
        return
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        hand_on(options.source, folder)
        print(push(folder, options.repo, options.private))


def token() -> str:
    """Who we are to the hub.

    Raises:
        UserError: nobody is logged in.
    """
    from huggingface_hub import get_token

    found = get_token()
    if not found:
        raise UserError("the hub asks for a token: hf auth login keeps one, or set HF_TOKEN.")
    return found


def push(folder: Path, repo: str, private: bool) -> str:
    """Upload a folder; where it is then.

    Raises:
        UserError: the hub refuses, or does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT"), token=token())
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repo, folder_path=folder, commit_message="family push")
    except HfHubHTTPError as error:
        said = (getattr(error, "server_message", None) or str(error)).strip().splitlines()[0]
        raise UserError(f"the hub refuses {repo}: {said.rstrip('.')}.") from None
    except (OSError, RuntimeError) as error:  # its client's errors of the network are of these
        raise UserError(f"the hub did not answer: {str(error).splitlines()[0]}.") from None
    return f"{folder.name} is at {getattr(done, 'repo_url', None) or f'{api.endpoint}/{repo}'}."
