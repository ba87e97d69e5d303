import copy
from typing import Any

import torch

from senet.training.config import Recipe, TrainConfig
from senet.training.job import prepare
from senet.training.loop import _train_step


def test_the_state_is_all_that_a_step_changes() -> None:
    """Put back, it leads to the same losses again."""
    job = prepare(TrainConfig(recipe=Recipe(epochs=1, batch_size=100, lr=0.1, weight_decay=1e-3)))
    dropout: Any = job.state.model.dropout
    dropout.p = 0.3
    batches = [job.to_device(*batch) for batch in job.train_batches][:6]
    for batch in batches[:3]:
        _train_step(job, *batch)
    kept = copy.deepcopy(
        (
            job.state.model.state_dict(),
            job.state.optimizer.state_dict(),
            job.state.scaler.state_dict(),
            job.state.step,
        )
    )
    first = [_train_step(job, *batch).item() for batch in batches[3:]]
    model, optimizer, scaler, job.state.step = kept
    job.state.model.load_state_dict(model)
    job.state.optimizer.load_state_dict(optimizer)
    job.state.scaler.load_state_dict(scaler)
    torch.manual_seed(123)
    assert [_train_step(job, *batch).item() for batch in batches[3:]] == first
