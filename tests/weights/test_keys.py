import torch
from hypothesis import given
from hypothesis import strategies as st

from senet.weights.keys import Row, same, to_ours, to_theirs

UP = Row("conv{s+1}_{u+1}_1x1_up.{*}", "layer{s}.{u}.se.fc2.{*}", kernel=1)


@given(st.integers(0, 98), st.integers(0, 998), st.sampled_from(("weight", "bias", "running_mean")))
def test_numbers_are_shifted_both_ways(s: int, u: int, word: str) -> None:
    theirs, ours = f"conv{s + 1}_{u + 1}_1x1_up.{word}", f"layer{s}.{u}.se.fc2.{word}"
    tensor = torch.ones(3)
    assert UP.to_ours(theirs, tensor) == (ours, tensor)
    assert UP.to_theirs(ours, tensor) == (theirs, tensor)


def test_what_a_row_does_not_speak_of() -> None:
    for key in ("conv0_1_1x1_up.bias", "conv02_1_1x1_up.bias", "conv2_1_1x1_up", "xconv2_1_1x1_up.bias"):
        assert UP.to_ours(key, torch.ones(3)) is None
    # A linear layer is ours already, not theirs.
    assert UP.to_ours("conv2_1_1x1_up.weight", torch.ones(4, 2)) is None
    module = Row("inception_{M}/1x1.{*}", "inception_{M}.conv.{*}")
    assert module.to_ours("inception_3a/1x1.bias", torch.ones(3)) is not None
    assert module.to_ours("inception_3a/b/1x1.bias", torch.ones(3)) is None


def test_a_convolution_over_all_of_its_input_is_a_linear_layer() -> None:
    row = Row("head.{*}", "fc.{*}", kernel=7)
    theirs = torch.randn(5, 3, 7, 7)
    name, ours = row.to_ours("head.weight", theirs) or ("", theirs)
    assert (name, ours.shape) == ("fc.weight", (5, 147))
    x = torch.randn(2, 3, 7, 7)
    convolved = torch.nn.functional.conv2d(x, theirs).flatten(1)
    torch.testing.assert_close(torch.nn.functional.linear(x.flatten(1), ours), convolved)
    _, back = row.to_theirs("fc.weight", ours) or ("", ours)
    assert torch.equal(back, theirs)
    assert (row.to_theirs("fc.bias", torch.ones(5)) or ("", ours))[1].shape == (5,)


def test_a_table_translates_both_ways_and_names_what_it_does_not_know() -> None:
    rows = (UP, *same("fc.{*}"), Row("stem.{*}", "fc.{*}"))
    theirs = {"conv2_1_1x1_up.weight": torch.ones(4, 2, 1, 1), "fc.bias": torch.zeros(4)}
    ours, unknown = to_ours(rows, theirs)
    assert (sorted(ours), unknown) == (["fc.bias", "layer1.0.se.fc2.weight"], [])
    back, unknown = to_theirs(rows, ours)
    assert {key: value.shape for key, value in back.items()} == {key: v.shape for key, v in theirs.items()}
    # A second tensor of the same name is not taken in silence.
    assert to_ours(rows, {**theirs, "stem.bias": torch.ones(4), "other": torch.ones(1)})[1] == [
        "stem.bias",
        "other",
    ]
