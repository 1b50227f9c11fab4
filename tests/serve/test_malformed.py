"""Requests made at random from the OpenAPI description: never a trace, never a 5xx."""

from __future__ import annotations

import contextlib

import pytest

from tasks.serve.app import make_app
from tasks.serve.limits import Limits

CASES = 100
"""Of each operation, at most."""


@pytest.mark.slow
def test_nothing_malformed_is_a_fault_of_the_server(models, help):
    schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
    import hypothesis

    limits = Limits(new_tokens=8)
    seen: dict[int, int] = {}
    with help.running(make_app(models, limits)) as address:
        schema = schemathesis.openapi.from_url(f"{address}/api/openapi.json")
        for result in schema.get_all_operations():
            operation = result.ok()
            modes = list(schemathesis.GenerationMode)

            for mode in modes:
                cases = operation.as_strategy(generation_mode=mode)

                @hypothesis.given(cases)
                @hypothesis.settings(
                    max_examples=CASES // len(modes),
                    derandomize=True,
                    deadline=None,
                    database=None,
                    suppress_health_check=list(hypothesis.HealthCheck),
                )
                def holds(case):
                    answer = case.call()
                    seen[answer.status_code] = seen.get(answer.status_code, 0) + 1
                    assert answer.status_code < 500, answer.text
                    if answer.status_code >= 400:
                        assert list(answer.json()) == ["error"]

                with contextlib.suppress(hypothesis.errors.Unsatisfiable):
                    holds()  # of an address that takes nothing there is nothing malformed
    print(seen)
    assert sum(seen.values()) > 500 and seen[200] and seen[422]
