"""``family ask SOURCE PICTURE... --question "how many circles are there?"``: answers about pictures."""

from __future__ import annotations

from tasks.commands.pictures import find_pictures, parser, read_pictures
from tasks.commands.results import Results, format_option
from tasks.commands.running import open_model
from tasks.commands.sentences import checked
from tasks.errors import user_errors


def run(arguments: list[str]) -> None:
    """Print the answer to each question of each picture."""
    options_parser = parser(
        "ask", __doc__, 'family ask RUN picture.png --question "how many stars?"'
    )
    options_parser.add_argument(
        "--question", action="append", required=True, help="to be answered of each picture; several"
    )
    format_option(options_parser, file=False)
    options = options_parser.parse_args(arguments)
    questions = [checked(question).strip() for question in options.question]
    paths = find_pictures(options.images)
    loaded = open_model(options.checkpoint, options, "VisualQuestions", "VisionChat")
    with Results(options.format) as results:
        for batch in read_pictures(paths, loaded, options):
            with user_errors():
                asked = [(path, picture, q) for path, picture in batch for q in questions]
                pictures = [picture for _, picture, _ in asked]
                made = loaded.predict(
                    pictures, [q for _, _, q in asked], batch_size=options.batch_size
                )
            for (path, _, question), found in zip(asked, made, strict=True):
                said = found if isinstance(found, dict) else {"answer": found}
                text = said["answer"] + (f" {said['score']:.2f}" if "score" in said else "")
                row = {"file": str(path), "question": question, **said}
                results.write(row, f"{path}\t{question}\t{text}")
