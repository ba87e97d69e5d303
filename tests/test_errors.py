import pickle

import pytest

from senet import errors


def test_the_message_says_four_things() -> None:
    error = errors.ShapeError("scale(u, s)", found="s is (2, 3)", allowed="(N, C)", do="Transpose it.")
    assert str(error) == "scale(u, s): s is (2, 3). Allowed: (N, C). Transpose it."


def test_every_class_is_a_built_in_too() -> None:
    fits = {
        errors.OptionError: ValueError,
        errors.UndefinedError: errors.OptionError,
        errors.ShapeError: ValueError,
        errors.DtypeError: TypeError,
        errors.WeightsError: RuntimeError,
        errors.DataError: RuntimeError,
        errors.RunError: RuntimeError,
        errors.InUseError: errors.RunError,
        errors.StoppedError: RuntimeError,
        errors.BackendError: RuntimeError,
        errors.RecordingError: RuntimeError,
        errors.TraceError: RuntimeError,
        errors.InsertionError: ValueError,
        errors.AccelerationError: ValueError,
        errors.DeploymentError: RuntimeError,
        errors.MissingExtraError: ImportError,
    }
    family = {
        value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, Exception)
    }
    assert family == {errors.SenetError, *fits}
    for error, built_in in fits.items():
        assert issubclass(error, errors.SenetError)
        assert issubclass(error, built_in)


def test_an_error_crosses_processes() -> None:
    error = errors.DataError("reading a.png", found="it is broken", do="Repair it.")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is errors.DataError
    assert str(copy) == str(error)


def test_a_missing_extra_names_the_command() -> None:
    error = errors.MissingExtraError.of("pillow", extra="train", need="reading images")
    assert "pip install 'senet[train]'" in str(error)


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("sigmod", "Did you mean 'sigmoid'?"), ("hard_sigmoid", "Did you mean 'hardsigmoid'?"), ("xyz", "")],
)
def test_did_you_mean(name: str, nearest: str) -> None:
    assert errors.did_you_mean(name, ["sigmoid", "tanh", "hardsigmoid"]) == nearest


def test_check_options_and_require() -> None:
    errors.check_options("build", {"a": 1}, ["a", "b"])
    with pytest.raises(errors.OptionError, match=r"build\(gait=\.\.\.\).*Did you mean 'gate'"):
        errors.check_options("build", {"gait": 1}, ["gate", "bias"])
    errors.require("lr", 1, True, "above 0")
    with pytest.raises(errors.OptionError, match=r"lr=-1.*Allowed: above 0"):
        errors.require("lr", -1, False, "above 0")


@pytest.mark.parametrize("value", ["tan", 3, None])
def test_check_choice(value: object) -> None:
    errors.check_choice("gate", "tanh", ["sigmoid", "tanh"])
    with pytest.raises(errors.OptionError, match="Allowed: sigmoid, tanh"):
        errors.check_choice("gate", value, ["sigmoid", "tanh"])
