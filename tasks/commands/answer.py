"""``family answer SOURCE --question Q --context TEXT`` or ``family answer SOURCE FILE``: the span of a text that
answers a question of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from family.files import write_text
from family.inference.batches import TEXTS, chunks
from tasks.commands.examples import command_parser
from tasks.commands.results import FORMATS, Results, not_an_input
from tasks.commands.running import model_options, open_model
from tasks.commands.sentences import checked
from tasks.data.squad import ENDINGS, JSON, Answer, Asked, read_questions
from tasks.errors import UserError, user_errors


def run(arguments: list[str]) -> None:
    """Write an answer for each question: as a line with its score; as a record, with where it stands; or, as
    SQuAD's script reads them, all as one object, id to answer."""
    parser = command_parser(
        "answer",
        __doc__,
        'family answer SOURCE --question "Who?" --context "Ann did."',
        "family answer SOURCE questions.json",
    )
    parser.add_argument("source", help="a .ckpt file, the folder of a run, or a published model")
    parser.add_argument(
        "file",
        nargs="?",
        type=Path,
        help="questions with their texts: .json as of SQuAD, or .jsonl",
    )
    parser.add_argument(
        "--question", action="append", default=[], help="in place of a file; several"
    )
    parser.add_argument("--context", help="the text that they are asked of")
    parser.add_argument(
        "--threshold",
        type=float,
        help="no answer, where none is by more than this surer than the best (default: the run's; else "
        "there is always one)",
    )
    parser.add_argument(
        "--out", type=Path, help="a .json, .jsonl or .csv file (default: standard output)"
    )
    parser.add_argument(
        "--format",
        choices=[*FORMATS, "json"],
        help="of the answers; json is one object, id to answer (default: text, or as the ending of --out "
        "says)",
    )
    model_options(parser, TEXTS)
    options = parser.parse_args(arguments)
    asked = asked_by(options.file, options.question, options.context)
    loaded = open_model(options.source, options, "QuestionAnswering")
    more = {} if options.threshold is None else {"threshold": options.threshold}
    kind = options.format
    if kind is None and options.out is not None and options.out.suffix == JSON:
        kind = "json"
    inputs = [options.file] if options.file else []
    if kind == "json":
        answers = [made["answer"] for _, made in answered(loaded, asked, options.batch_size, more)]
        pairs = zip(asked, answers, strict=True)
        write_object({one.id: answer for one, answer in pairs}, options.out, inputs)
        return
    with Results(kind, options.out, inputs) as results:
        for one, made in answered(loaded, asked, options.batch_size, more):
            line = f"{one.question}\t{made['answer'] or '(none)'} {made['score']:.3f}"
            results.write({"id": one.id, "question": one.question, **made}, line)


def asked_by(file: Path | None, questions: list[str], context: str | None) -> list[Asked]:
    """The questions of a file, or of the command line.

    Raises:
        UserError: neither or both; a file of another kind; see :func:`~tasks.data.squad.read_questions`.
    """
    if (file is None) == (not questions) or bool(questions) != (context is not None):
        raise UserError(
            "family answer takes a file of questions, or --question with the --context that it is asked of."
        )
    if file is None:
        no_answers: tuple[Answer, ...] = ()
        text = checked(str(context))
        return [
            Asked(str(i), checked(question).strip(), text, no_answers, "0", f"question {i}")
            for i, question in enumerate(questions)
        ]
    if file.exists() and file.suffix not in ENDINGS:
        raise UserError(f"{file}: questions are read from {' and '.join(ENDINGS)} files.")
    return read_questions(file, needed=False)


def answered(loaded: Any, asked: list[Asked], batch_size: int, more: dict[str, Any]) -> Any:
    """Each question with what is answered."""
    for some in chunks(asked, batch_size):
        with user_errors():
            questions, contexts = [one.question for one in some], [one.context for one in some]
            found = loaded.predict(questions, contexts, batch_size=batch_size, **more)
        yield from zip(some, found, strict=True)


def write_object(answers: dict[str, str], out: Path | None, inputs: list[Path]) -> None:
    """All answers as one object, to a file or to standard output."""
    text = json.dumps(answers, ensure_ascii=False, indent=2)
    if out is None:
        print(text)
        return
    not_an_input(out, inputs)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        write_text(out, f"{text}\n")
    except OSError as error:
        raise UserError(f"--out {out} cannot be written: {error.strerror}.") from None
