"""What the launchers start, compiled to machine code without a GPU, and counted."""

from itertools import product
from typing import Any

import pytest
import torch
from tests.kernels.gpu.cases import GATES, HIDDEN, INNER
from tests.kernels.gpu.compiling import Launch, usage
from tests.kernels.gpu.sites import Site, launches
from torch import Tensor

from senet.kernels.gpu.configurations import MAX_HIDDEN

RESNET = Site((256, 256, 56, 56))
MAPS = ("u_map", "g_map", "second_map", "out_map", "gm_map", "du_map", "residual_map")

# A few sites that between them have every kernel.
FEW = [
    RESNET,
    Site((1, 24, 57, 57), torch.float32, inner="silu", outer="identity", residual=False, width=6),
    Site((8, 480, 14, 14), torch.float16, last=False, norm="none", inner="hardswish", width=120),
]

# Shapes with every tile and every alignment of the table, in both layouts.
SHAPES = [
    *(((8, c, s, s), True) for c, s in ((3, 1), (64, 2), (512, 7), (30, 14), (12, 30), (3, 28), (20, 9))),
    *(((8, 40, h, w), False) for h, w in ((1, 3), (3, 3), (2, 6), (7, 7), (14, 14), (28, 28), (15, 34))),
]
ALL = [
    *(
        Site(shape, dtype, last, inner=inner)
        for (shape, last), dtype, inner in product(
            SHAPES, (torch.float32, torch.bfloat16, torch.float16), ("identity", "silu")
        )
    ),
    *(
        Site(shape, dtype, last, norm, inner, outer, residual, other=other)
        for shape, last in (((8, 512, 7, 7), True), ((8, 40, 28, 28), False))
        for norm, inner, outer, residual in product(
            ("batch", "fixed", "none"), INNER, ("identity", "relu"), (False, True)
        )
        for dtype, other in ((torch.bfloat16, None), (torch.float32, torch.bfloat16))
    ),
    *(
        Site(shape, dtype, last, inner=inner, outer=outer, fork=True)
        for (shape, last), dtype, inner, outer in product(
            (((8, 512, 7, 7), True), ((8, 40, 28, 28), False)),
            (torch.float32, torch.bfloat16),
            ("identity", "silu"),
            ("identity", "relu"),
        )
    ),
    *(Site((300, 2048, 7, 7), width=width) for width in (1, 16, 17, 33, 65, 128, MAX_HIDDEN)),
    *(Site((n, c, 7, 7), width=16) for n, c in ((1, 16), (2, 100), (17, 160), (64, 400), (256, 64))),
    *(
        Site((8, 512, 7, 7), inner=inner, hidden=hidden, gate=gate)
        for inner, hidden, gate in product(("identity", "silu"), HIDDEN, GATES)
    ),
]


def _distinct(sites: list[Site]) -> list[Launch]:
    found = {launch.key: launch for site in sites for half in launches(site) for launch in half}
    return list(found.values())


def _check_machine_code(launch: Launch, capability: int) -> None:
    used = usage(launch, capability)
    told = f"{launch.name} on sm_{capability} takes {used}: {launch.specialised()}"
    # Without asking for more, a program has 48 KiB of shared memory.
    assert used.shared <= 48 * 1024, told
    assert used.stack <= ALLOWED_STACK, told


# Bytes a thread. The assembler may put one or two numbers aside around a matrix product, out of any loop.
ALLOWED_STACK = 16


@pytest.mark.parametrize("capability", [80, 90])
@pytest.mark.parametrize("site", FEW, ids=str)
def test_kernels_compile_and_keep_their_numbers_in_registers(site: Site, capability: int) -> None:
    found = _distinct([site])
    for launch in found:
        _check_machine_code(launch, capability)
    assert len(found) >= 8


@pytest.mark.slow
@pytest.mark.parametrize("capability", [80, 90])
def test_every_configuration_compiles_and_keeps_its_numbers_in_registers(capability: int) -> None:
    found = _distinct(ALL)
    for launch in found:
        _check_machine_code(launch, capability)
    assert len(found) > 300


def _maps(launch: Launch) -> int:
    """How many maps a kernel reads or writes."""
    return sum(isinstance(launch.values.get(name), Tensor) for name in MAPS)


@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize(
    ("change", "forward_passes", "backward_passes"),
    [
        ({}, 4, 7),
        ({"fork": True}, 4, 8),
        ({"residual": False, "outer": "identity"}, 3, 5),
        ({"norm": "fixed"}, 4, 6),
        ({"norm": "none", "residual": False, "outer": "identity"}, 3, 4),
        ({"inner": "silu", "residual": False, "outer": "identity"}, 4, 5),
    ],
)
def test_passes_and_kernels_are_as_many_as_promised(
    last: bool, change: dict[str, Any], forward_passes: int, backward_passes: int
) -> None:
    forward, backward = launches(RESNET._replace(last=last, **change))
    assert sum(map(_maps, forward)) == forward_passes
    assert sum(map(_maps, backward)) == backward_passes
    assert sum(_maps(launch) == 0 for launch in forward) <= 3
    assert sum(_maps(launch) == 0 for launch in backward) <= 4
    assert all(launch.programs < 2**31 for launch in forward + backward)


def test_a_few_channels_are_shared_by_many_programs() -> None:
    forward, backward = launches(Site((1, 64, 112, 112)))
    sweeps = [launch for launch in forward + backward if launch.name in ("moments_kernel", "reduce_kernel")]
    assert len(sweeps) == 2
    assert all(launch.programs > 90 for launch in sweeps)
    assert any(launch.name == "merge_moments_kernel" for launch in forward)
    assert any(launch.name == "merge_sums_kernel" for launch in backward)


def test_nothing_about_a_launch_depends_on_when_it_happens() -> None:
    first, second = launches(RESNET), launches(RESNET)
    for one, other in zip(first[0] + first[1], second[0] + second[1], strict=True):
        assert one.key == other.key
        assert one.programs == other.programs
