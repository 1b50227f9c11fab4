"""``family generate``: what is asked for on the command line is what is shown."""

from __future__ import annotations

import pytest
import torch

import family
from family import Generation, Sampling
from tasks.cli import main
from tasks.data.tokenizers import train_tokenizer

TEXTS = ["there is a red circle", "two blue squares."] * 9


@pytest.fixture
def source(tmp_path):
    torch.manual_seed(0)
    tokenizer = train_tokenizer("unigram", TEXTS, 40)
    model = family.gpt_nano(tokenizer.vocab_size, dim=16, depth=2, heads=2, max_tokens=48).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(std=0.3)
    model.tokenizer, model.generation = tokenizer, Generation(stop_ids=())
    family.save_pretrained(model, tmp_path / "model")
    return tmp_path / "model"


def shown(capsys, source, *options, prompt="there"):
    main(["generate", str(source), f"--prompt={prompt}", *options])
    return capsys.readouterr().out


def whole(source, prompt="there", **options):
    """Prompt and continuation, decoded together; of several, each on a line."""
    model = family.from_pretrained(source)
    ids = model.tokenizer.encode(prompt)
    rows = model.generate(torch.tensor([ids]), pad_id=0, **options).tolist()
    return "".join(model.tokenizer.decode(ids + row) + "\n" for row in rows)


def test_options_are_those_of_the_library(source, capsys):
    few = "--max_new_tokens=9"
    assert shown(capsys, source, few, "--temperature=0") == whole(source, max_new_tokens=9)
    for mine, theirs in [
        (["--beams=3"], {"beams": 3}),
        (["--beams=3", "--num=2"], {"beams": 3, "num": 2}),
        (["--temperature=0", "--no_repeat_ngram=1"], {"no_repeat_ngram": 1}),
        (
            ["--beams=2", "--repetition_penalty=2"],
            {"beams": 2, "sampling": Sampling(repetition_penalty=2.0)},
        ),
    ]:
        assert shown(capsys, source, few, *mine) == whole(source, max_new_tokens=9, **theirs)


def test_several_are_drawn(source, capsys):
    lines = shown(capsys, source, "--num=3", "--max_new_tokens=9", "--temperature=1.5").split("\n")
    assert len(lines) == 4 and len(set(lines)) == 4
    assert all(line.startswith("there") for line in lines[:3])


def test_a_text_ends_before_a_stop_string(source, capsys):
    text = shown(capsys, source, "--temperature=0", "--max_new_tokens=20")
    stop = text[9:11]
    for more in ([], ["--stop=@@"]):
        options = ["--temperature=0", "--max_new_tokens=20", f"--stop={stop}", *more]
        assert shown(capsys, source, *options) == text[: text.index(stop, 5)] + "\n"
    beams = ["--beams=2", "--max_new_tokens=20"]
    found = shown(capsys, source, *beams)
    stop = found[9:11]
    # A search ends there too: what comes after such a string does not count.
    best = whole(source, beams=2, max_new_tokens=20, stop_strings=stop)
    cut = best.removesuffix(stop + "\n").removesuffix("\n") + "\n"
    assert shown(capsys, source, *beams, f"--stop={stop}") == cut != found


def test_the_end_token_ends_a_text_unless_it_is_too_early(source, capsys):
    model = family.from_pretrained(source)
    ids = torch.tensor([model.tokenizer.encode("there")])
    free = model.generate(ids, max_new_tokens=12)[0].tolist()
    model.generation = Generation(stop_ids=(free[4],))
    family.save_pretrained(model, source.parent / "ends")
    ends = source.parent / "ends"
    made = shown(capsys, ends, "--temperature=0", "--max_new_tokens=12")
    place = free.index(free[4])
    assert made == model.tokenizer.decode(ids[0].tolist() + free[:place]) + "\n"
    longer = shown(capsys, ends, "--temperature=0", "--max_new_tokens=12", "--min_new_tokens=12")
    options = {"max_new_tokens": 12, "min_new_tokens": 12}
    assert longer == whole(ends, **options) != made


def test_how_to_draw_is_what_the_model_says(source, capsys):
    model = family.from_pretrained(source)
    # Of one token alone: greedy, whatever the temperature.
    model.generation = Generation(stop_ids=(), sampling=Sampling(temperature=5.0, top_k=1))
    family.save_pretrained(model, source.parent / "cold")
    few = "--max_new_tokens=9"
    greedy = whole(source, max_new_tokens=9)
    assert shown(capsys, source.parent / "cold", few) == greedy
    assert shown(capsys, source.parent / "cold", few, "--top_k=0") != greedy


def test_a_model_that_searches_is_searched_unless_something_is_drawn(source, capsys):
    model = family.from_pretrained(source)
    model.generation = Generation(stop_ids=(), beams=3, max_new_tokens=9, no_repeat_ngram=1)
    folder = source.parent / "beams"
    family.save_pretrained(model, folder)
    searched = whole(folder)
    assert shown(capsys, folder) == searched == whole(folder, beams=3)
    assert shown(capsys, folder, "--num=2") == whole(folder, num=2)
    greedy = whole(folder, beams=1)
    assert shown(capsys, folder, "--temperature=0") == greedy != searched
    assert shown(capsys, folder, "--temperature=0", "--top_k=5") == greedy
    assert shown(capsys, folder, "--beams=1", "--temperature=0") == greedy
    assert shown(capsys, folder, "--temperature=2", "--seed=3") not in (greedy, searched)
    loaded = family.load(folder)
    prompts = {"sampling": Sampling(top_k=5)}  # greedy, but of a kind that no search knows
    assert loaded.predict(["there"], **prompts)[0] == greedy.removeprefix("there").removesuffix(
        "\n"
    )


def test_a_model_that_never_ends_a_text_does_not(source):
    model = family.from_pretrained(source)
    ids = torch.tensor([model.tokenizer.encode("there")])
    free = model.generate(ids, max_new_tokens=12)[0].tolist()
    model.tokenizer.stop_ids = lambda: {free[3]}
    loaded = family.load(model)
    whole_text = model.tokenizer.decode(ids[0].tolist() + free).removeprefix("there")
    assert loaded.predict(["there"], max_new_tokens=12) == [whole_text]
    model.generation = None
    short = loaded.predict(["there"], max_new_tokens=12)[0]
    assert whole_text.startswith(short) and short != whole_text
    assert loaded.predict(["there"], max_new_tokens=12, stop_ids=()) == [whole_text]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--beams=2", "--temperature=1"], "beams=2 search and draw nothing"),
        (["--beams=2", "--num=3"], "num=3 is more than beams=2 find"),
        (["--temperature=0", "--num=3"], "num=3 greedy texts would be the same"),
        (["--beams=0"], "--beams must be at least 1, not 0"),
        (["--stop="], "an empty stop string"),
        (["--min_new_tokens=9", "--max_new_tokens=3"], "min_new_tokens=9 must be from 0 to"),
    ],
)
def test_refused_in_one_sentence(source, capsys, options, said):
    with pytest.raises(SystemExit):
        shown(capsys, source, *options)
    message = capsys.readouterr()
    assert said in message.err and len(message.err.splitlines()) == 1
    assert not message.out


def test_a_draft_changes_no_word(source, capsys):
    greedy = ["--max_new_tokens=20", "--temperature=0"]
    plain = shown(capsys, source, *greedy)
    for draft in ("prompt", str(source)):
        assert shown(capsys, source, *greedy, f"--draft={draft}") == plain
    with pytest.raises(SystemExit):
        shown(capsys, source, *greedy, "--draft=prompt", "--draft_tokens=0")
    assert "--draft_tokens must be at least 1" in capsys.readouterr().err


def test_the_step_of_a_token_is_compiled_where_there_is_one(source, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(family.GPT, "compile_decoding", lambda model: asked.append(model))
    plain = shown(capsys, source, "--max_new_tokens=5")
    assert not asked
    assert shown(capsys, source, "--max_new_tokens=5", "--compile") == plain
    assert len(asked) == 1
    monkeypatch.delattr(family.GPT, "compile_decoding")
    with pytest.raises(SystemExit):
        shown(capsys, source, "--compile")
    assert "--compile is for language models, and not for a GPT" in capsys.readouterr().err


def test_weights_in_eight_bits(source, capsys):
    pytest.importorskip("torchao")
    assert shown(capsys, source, "--precision=int8", "--max_new_tokens=5").startswith("there")
