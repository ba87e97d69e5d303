"""What SE costs a training step in bytes, compiled for a GPU and eager: exact, and without a GPU."""

import sys
from pathlib import Path

import pytest

# Scripts, that find each other beside them.
sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))
import eager
import generated
import lowering

pytest.importorskip("timm")
pytest.importorskip("triton")

TIMM_PLAIN, TIMM_SE = "timm:resnet50", "timm:seresnet50"
OUR_PLAIN, OUR_SE = "resnet50", "se_resnet50"
FOLDED, SIMPLIFIED = f"simplified {TIMM_PLAIN}", f"simplified {TIMM_SE}"


@pytest.fixture(scope="module")
def unit() -> dict[str, generated.Lowered]:
    """One unit of each network, whose shortcut is the identity."""
    networks = (TIMM_PLAIN, TIMM_SE, OUR_SE)
    return dict(zip(networks, lowering.lower(*networks, batch=8, part="layer1.1"), strict=True))


@pytest.mark.slow
def test_se_by_layers_costs_a_compiled_step_much_and_ours_little(unit: dict[str, generated.Lowered]) -> None:
    plain, theirs, ours = unit.values()
    cost = theirs.mib - plain.mib
    assert cost > 0.2 * plain.mib
    assert ours.mib - plain.mib <= 0.15 * cost


@pytest.mark.slow
def test_a_compiled_step_saves_no_map_more_with_ours(unit: dict[str, generated.Lowered]) -> None:
    plain, _, ours = unit.values()
    # Some numbers for each channel of each image, and SE's weights.
    assert ours.saved_mib - plain.saved_mib <= 8 * 8 * 256 * 4 / generated.MIB


@pytest.mark.slow
def test_se_resnet50_compiled() -> None:
    plain, theirs, ours, accelerated = lowering.lower(TIMM_PLAIN, TIMM_SE, OUR_SE, f"accelerated {TIMM_SE}")
    assert theirs.mib - plain.mib > 15_000
    for each in (ours, accelerated):
        assert each.mib <= plain.mib
        # Of each image not more than its numbers for each channel, 60 kB at most of each kind.
        assert each.saved_mib - plain.saved_mib <= 256 * 0.25


@pytest.mark.slow
def test_se_becomes_the_epilogue_and_its_squeeze_joins_a_pass() -> None:
    # The batch of the goal: a small one has too few sums for a GPU, and Inductor splits them off.
    found = lowering.lower(FOLDED, SIMPLIFIED, TIMM_SE, batch=256, part="layer1.1", inference="max-autotune")
    plain, ours, theirs = (each.forward for each in found)
    narrow, wide, gates = (256 * 2 * 56 * 56 * 64, 256 * 2 * 56 * 56 * 256, 256 * 4 * 256)
    # The activation of the narrow map, in and out; and in the last product's epilogue the shortcut.
    assert [kernel.map_bytes for kernel in plain.kernels if kernel.maps] == [2 * narrow, wide]
    assert [kernel.map_bytes for kernel in ours.kernels if kernel.maps] == [2 * narrow, wide]
    for direction, entering in ((plain, 0), (ours, gates)):
        (epilogue,) = (kernel for kernel in direction.kernels if kernel.product and kernel.maps)
        # And a bias, or two: the convolution's in half precision.
        assert epilogue.read - wide - entering in (2 * 256, 2 * 2 * 256)
        assert direction.kernels[-1] == epilogue
    # Theirs reads what the last product gives for the squeeze, and again with the shortcut for the scale.
    assert [kernel.map_bytes for kernel in theirs.kernels if kernel.maps] == [2 * narrow, wide, 3 * wide]
    assert theirs.epilogues == 0


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["default", "max-autotune"])
def test_simplified_se_resnet50_moves_no_more_than_plain(mode: str) -> None:
    plain, ours, theirs = (
        each.forward for each in lowering.lower(FOLDED, SIMPLIFIED, TIMM_SE, inference=mode)
    )
    assert (ours.mib, ours.large, ours.epilogues) == (plain.mib, plain.large, plain.epilogues)
    assert theirs.mib - plain.mib > 5_000


def test_code_is_read_as_it_is_run() -> None:
    code = generated.Generated(CODE, {"primals_1": 64, "buf0": 64, "buf1": 32}, 0)
    direction = generated.read(code, small=16)
    (kernel,) = direction.kernels
    # Loads of both loops are one read, and the second a read again; a number is no map.
    assert (kernel.read, kernel.written) == (64 + 8, 64 + 32)
    assert (kernel.maps, kernel.map_bytes, kernel.again) == (3, 160, 64)
    assert direction.extern == {"extern_kernels.convolution": 1}


def test_of_a_template_the_epilogue_is_read() -> None:
    sizes = {"arg0_1": 64, "arg1_1": 4, "arg2_1": 64, "arg3_1": 8, "buf0": 64, "buf1": 64}
    direction = generated.read(generated.Generated(TEMPLATE, sizes, 0), small=16)
    (kernel,) = direction.kernels
    # Neither the operands nor the result, but what is added, and what is written beside the result.
    assert kernel.product
    assert (kernel.read, kernel.written) == (64 + 8, 64)
    assert (kernel.maps, kernel.map_bytes) == (2, 128)
    assert (direction.products, direction.epilogues, direction.large) == (1, 1, 0)
    row = generated.Lowered("network", "2", direction).row()
    assert (row["forward MiB"], row["forward small"], row["epilogues"]) == (0, 0, 1)


TEMPLATE = '''
triton_tem_fused_0 = async_compile.triton('triton_tem_fused_0', """
@triton_heuristics.template(num_stages=1)
@triton.jit
def triton_tem_fused_0(arg_A, arg_B, in_ptr2, in_ptr3, out_ptr1, out_ptr2):
    A = arg_A
    B = arg_B
    for k_idx in range(0, tl.cdiv(K, BLOCK_K)):
        a = tl.load(A + (xindex))
        b = tl.load(B + (xindex))
        acc += tl.dot(a, b)
    tmp0 = tl.load(in_ptr2 + (xindex), mask)
    tmp1 = tl.load(in_ptr3 + (idx_n), mask)
    tl.store(out_ptr1 + (xindex), acc, mask)
    tl.store(out_ptr2 + (xindex), acc * tmp1 + tmp0, mask)
""", device_str='cuda')
def call(args):
    triton_tem_fused_0.run(arg0_1, arg1_1, arg2_1, arg3_1, buf0, buf1, 16, 1, 1, stream=stream0)
'''


CODE = '''
triton_red_fused_0 = async_compile.triton('triton_red_fused_0', """
@triton.jit
def triton_red_fused_0(in_ptr0, in_ptr1, out_ptr0, out_ptr1, xnumel, XBLOCK: tl.constexpr):
    tmp0 = tl.load(in_ptr1 + (x0), xmask)
    for r0_offset in range(0, r0_numel, R0_BLOCK):
        tmp1 = tl.load(in_ptr0 + (r0_1 + 4*x0), r0_mask, other=0.0).to(tl.float32)
    for r0_offset in range(0, r0_numel, R0_BLOCK):
        tmp2 = tl.load(in_ptr0 + (r0_1 + 4*x0), r0_mask, other=0.0).to(tl.float32)
        tl.store(out_ptr0 + (r0_1 + 4*x0), tmp2, r0_mask)
    tl.store(out_ptr1 + (x0), tmp0, xmask)
""", device_str='cuda')
def call(args):
    workspace = empty_strided_cuda((2, ), (1, ), torch.float32)
    triton_red_fused_0.run(primals_1, workspace, buf0, buf1, 16, stream=stream0)
    buf2 = extern_kernels.convolution(buf0, buf1, stride=(1, 1))
'''


@pytest.mark.parametrize(
    ("network", "forward", "backward"),
    [
        (OUR_SE, 4, 7),
        (f"accelerated {TIMM_SE}", 4, 7),
        (OUR_PLAIN, 8, 8),
        (TIMM_PLAIN, 8, 8),
        (TIMM_SE, 11, 18),
    ],
)
def test_passes_at_the_end_of_a_branch(network: str, forward: int, backward: int) -> None:
    assert [each.total for each in eager.tail_passes(network)] == [forward, backward]


def test_what_is_saved_for_backward() -> None:
    plain = eager.saved_mib(TIMM_PLAIN)
    assert plain == pytest.approx(82.0, abs=0.05)
    assert eager.saved_mib(OUR_PLAIN) == pytest.approx(plain, abs=0.01)
    assert eager.saved_mib(TIMM_SE) == pytest.approx(103.2, abs=0.05)
    # The gates and the squeezed maps: numbers for each channel, and no map.
    assert eager.saved_mib(OUR_SE) == pytest.approx(plain, abs=0.25)
