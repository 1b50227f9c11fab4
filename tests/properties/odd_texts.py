"""What nobody expects in a field, a file or a name."""

from __future__ import annotations

import json
import math
import os

# fmt: off
TEXTS = [
    "", " ", "\x00", "\ufeff", "\u2028", "\x85", "\r", "a\rb", "\n", "\n\n", "\t", ",", ";", '"', '""', 'a"b', 'sep="',
    "sep=;", "\x1b[31m", "\x1c", "nan", "inf", "-inf", "1e400", "1e39", "-1", "1_0", "٣", "½", "9" * 400, "9" * 5000,
    "0x10", "e\u0301\u0302", "\U0001f468\u200d\U0001f469", "\u202eabc", "ﬀ", "İ", "<pad>", "<unk>", "<image>",
    "<|im_end|>", "{{ 1 }}", "</object>", "&lol;", "<!DOCTYPE a>", "O", "B-", "..", ".", "/", "/dev/zero",
    "/etc/passwd", "../../..", "-rf", "~", "a/b", "x" * 300, "x" * 70000, "[" * 3000, "[1", "[]", "{}", "null",
    "true", "#", "-DOCSTART-", "word " * 3000, "1 " * 3000 + "x",
]
"""What stands in a field, or between two bytes."""
DEEP, LONG = "@deep@", "@long@"
RAW = {json.dumps(DEEP): "[" * 99999 + "]" * 99999, json.dumps(LONG): "9" * 5000}
"""What JSON can say but Python's writer cannot."""
NESTED = json.loads("[" * 500 + "]" * 500)
VALUES = [
    None, True, False, 0, 1, -1, 3, 2**31, 2**63, 10**400, -(10**400), 0.5, 1e39, 1e308, math.nan, math.inf, -math.inf,
    [], {}, [[]], [{}], [None], [1], ["a", "b"], {"a": 1}, [[1, 2], [3]], "\ud800", "a\udc80b", DEEP, LONG, NESTED,
    {"role": "user", "content": "a"}, [0] * 5000, [math.nan] * 4, [-5, -5, 3, 3], [0, 0, 0, 0], [1e400, 0, 1, 1],
    [1, 2, 10**400, 3], ["1", "2", "3", "4"],
]
BYTES = [
    b"\x00", b"\xff", b"\xfe\xff", b"\xff\xfe", b"\xef\xbb\xbf", b"\xed\xa0\x80", b"\xc3", b"\r", b"\r\n",
    b"\x00" * 600, b"\xff" * 40, b"[" * 99999, b"{" * 9999, b"\n" * 999, b"\x7fELF", b"\x1f\x8b\x08",
    b"version https://git-lfs.github.com/spec/v1\n",
]
NAMES = [
    "with space", "new\nline", "-rf", "e\u0301", "é", "x" * 200, ".hidden", "a.b.c", "CON", "%s", "{a,b}", "[0-9]", "*",
    "\u202e", "#", "a;b", "tab\tb", "0" * 60, "\U0001f468", os.fsdecode(b"\xff\xfe"),
]
ENCODINGS = ("utf-16", "utf-16-be", "utf-32", "latin-1", "utf-8-sig", "cp500")
# fmt: on
