"""``family search CKPT "a red circle" FOLDER``: rank pictures by a sentence."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from tasks.commands.pictures import find_pictures, make_folder, parser
from tasks.commands.sentences import checked
from tasks.data.images import read_image
from tasks.errors import UserError, at_least, user_errors
from tasks.runs.checkpoints import load_checkpoint
from tasks.training.pictures import sheet


def run(arguments: list[str]) -> None:
    """Print the nearest pictures with their cosine similarity, and write a contact sheet."""
    options_parser = parser("search", __doc__, sentence="what to look for")
    options_parser.add_argument("--top", type=int, default=12)
    options_parser.add_argument("--out", type=Path, default=Path("search.png"))
    options = options_parser.parse_args(arguments)
    at_least(1, of="--", top=options.top)
    sentence = checked(options.sentence)
    if not sentence.strip():
        raise UserError("the sentence is empty: say what to look for.")
    kind = Image.registered_extensions().get(options.out.suffix.lower())
    if kind not in Image.SAVE or options.out.is_dir():
        raise UserError(f"--out {options.out} is no name of a picture, such as found.png.")
    paths = find_pictures(options.images)
    loaded = load_checkpoint(options.checkpoint, "ImageText")
    make_folder(options.out.parent)
    with user_errors():
        similarity = loaded.predict(paths, [sentence])[:, 0]
    best = similarity.topk(min(options.top, len(paths)))
    captions, pictures = [], []
    for place, (index, value) in enumerate(
        zip(best.indices.tolist(), best.values.tolist(), strict=True), 1
    ):
        print(f"{place:3}. {value:.3f}  {paths[index]}")
        captions.append(f"{place}. {value:.3f}\n{paths[index].name}")
        pictures.append(read_image(paths[index], background=loaded.preprocess.background))
    sheet(pictures, captions).save(options.out)
    print(f"The contact sheet is {options.out}.")
