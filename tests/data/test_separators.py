"""A table is read by what separates its columns, whoever wrote it."""

from __future__ import annotations

import pytest

from tasks.data.captions import table_rows
from tasks.data.labelled_texts import class_names, read_labelled
from tasks.errors import UserError


@pytest.mark.parametrize(
    "text",
    [
        'text,label\n"a, b; c",x\n',
        'text;label\n"a, b; c";x\n',
        "text\tlabel\na, b; c\tx\n",
        '\ufefftext;label\r\n"a, b; c";x\r\n',
        'sep=;\r\ntext;label\r\n"a, b; c";x\r\n',
        "sep=|\ntext|label\na, b; c|x\n",
        '\n"text";"label"\n"a, b; c";x\n',  # a line is blank
        'note "of\nx";text;label\n1;"a, b; c";x\n'.replace('note "of\nx"', '"note, of\nx"'),
        '"label, or class";text;label\n1;a, b; c;x\n'.replace("a, b; c", '"a, b; c"'),
    ],
)
def test_a_csv_is_read_by_its_separator(tmp_path, text):
    file = tmp_path / "train.csv"
    file.write_bytes(text.encode())
    (row,) = read_labelled(file)
    assert (row.text, row.label) == ("a, b; c", "x")


def test_a_mistake_names_the_line_of_the_file(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text("sep=;\ntext;label\na;x\nb\n")
    with pytest.raises(UserError, match=r"line 4 has 1 columns, but the first line names 2"):
        list(table_rows(file))


def test_two_columns_of_one_name_are_refused(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text("text,label,text,,\na,x,b,,\n")
    with pytest.raises(UserError, match=r"train.csv line 1 names the column text twice"):
        list(table_rows(file))
    file.write_text("text,label,,\na,x,,\n")  # as spreadsheets leave them
    assert [row["label"] for _, row in table_rows(file)] == ["x"]


def test_a_list_is_no_class(tmp_path):
    file = tmp_path / "train.jsonl"
    file.write_text('{"text": "a", "label": "x"}\n{"text": "b", "label": ["x", "y"]}\n')
    with pytest.raises(
        UserError, match=r"train.jsonl line 2 has a list of labels, .*data.multi_label=true"
    ):
        class_names(read_labelled(file))


def test_one_column_is_one(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text("text\none; two\n")
    assert list(table_rows(file)) == [(2, {"text": "one; two"})]


def test_a_separator_alone_is_a_table_of_nothing(tmp_path):
    file = tmp_path / "train.csv"
    file.write_text("sep=;\n")
    with pytest.raises(UserError, match="no line below the names of the columns"):
        read_labelled(file)


@pytest.mark.parametrize("name", ["train.csv", "train.tsv"])
def test_a_field_may_be_a_whole_document(tmp_path, name):
    between = "," if name.endswith("csv") else "\t"
    file = tmp_path / name
    file.write_text(f"text{between}label\n{'word ' * 40_000}end{between}x\n")
    assert len(read_labelled(file)[0].text) == 200_003
