"""Maps as a model makes them."""

from __future__ import annotations

import torch

import family


def test_a_recording_within_another_takes_nothing_from_it():
    model = family.gpt_nano(20, dim=16, depth=1, heads=2).eval()
    rows = [torch.zeros(1, tokens, dtype=torch.long) for tokens in (2, 3, 4)]
    with family.record_attention(model) as outer:
        model(rows[0])
        with family.record_attention(model) as inner:
            model(rows[1])
        model(rows[2])
    model(rows[0])
    (all_of_them,), (within,) = outer.values(), inner.values()
    assert [one.shape[-1] for one in all_of_them] == [2, 3, 4]
    assert [one.shape[-1] for one in within] == [3]
