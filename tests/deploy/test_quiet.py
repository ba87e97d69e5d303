import logging
import warnings

import pytest

from senet.deploy.quiet import quiet


def test_only_errors_are_heard(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    # PyTorch may keep its loggers to itself.
    monkeypatch.setattr(logger, "propagate", True)
    monkeypatch.setattr(logging.getLogger("torch"), "propagate", True)
    with quiet():
        logger.warning("it is tried")
        logger.error("it is wrong")
        warnings.warn("it will change", FutureWarning, stacklevel=1)
        with pytest.raises(UserWarning, match="of something else"):
            warnings.warn("of something else", UserWarning, stacklevel=1)
    assert {record.message for record in caplog.records} == {"it is wrong"}
    assert logger.level == level
    with pytest.raises(ZeroDivisionError), quiet():
        print(1 / 0)
    assert logger.level == level
