import dataclasses

import pytest
import torch
from tests.experiments.small import small_plan

from senet.experiments import estimate
from senet.experiments.estimate import seconds_of


def test_an_estimate_is_of_all_steps_and_tests(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a second a step and a tenth a test batch: 2 epochs of 2 steps of 16 images, and 3 test images."""

    def timed(run: object, device: torch.device) -> float:
        run()  # type: ignore[operator]
        return 0.1 if torch.is_inference_mode_enabled() else 1.0

    monkeypatch.setattr(estimate, "_timed", timed)
    found = seconds_of(small_plan(0, 1).cells)
    assert list(found) == ["plain", "SE"]
    assert found["SE"] == pytest.approx(2 * (2 * 1.0 + 0.1 * 3 / 16))
    recipe = dataclasses.replace(small_plan(0).cells[0].config.recipe, accumulate=2)
    parts = seconds_of(small_plan(0, recipe=recipe).cells)
    assert parts["SE"] == pytest.approx(2 * (2 * 2.0 + 0.1 * 3 / 8))


def test_a_time_is_measured() -> None:
    calls: list[int] = []
    assert estimate._timed(lambda: calls.append(1), torch.device("cpu")) >= 0
    assert len(calls) == 4
