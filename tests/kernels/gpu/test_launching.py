import pytest
import torch
from tests.kernels.gpu.compiling import recorded
from tests.programs import program

from senet.kernels.gpu.launching import launch
from senet.kernels.gpu.merging import merge_sums_kernel


def test_a_launch_names_its_kernel_its_programs_and_its_options() -> None:
    tensor = torch.empty(2, 3, device="meta")
    with recorded() as launches:
        launch(merge_sums_kernel, 70_000, tensor[0], tensor, 3, 2, warps=8, rows=16, lanes=32)
    (one,) = launches
    assert one.name == "merge_sums_kernel"
    assert one.programs == 70_000
    assert one.options["num_warps"] == 8
    assert one.values["numbers"] == 3


def test_senet_does_not_import_triton_by_itself() -> None:
    code = "import senet, senet.kernels.fused, sys; print('triton' in sys.modules)"
    assert program("-c", code).strip() == "False"


@pytest.mark.gpu
def test_a_launch_goes_to_the_device_of_its_tensors() -> None:
    device = torch.device("cuda", torch.cuda.device_count() - 1)
    partial, merged = torch.ones(2, 1, 3, device=device), torch.zeros(1, 3, device=device)
    launch(merge_sums_kernel, 1, merged, partial, 3, 2, rows=16, lanes=32)
    assert merged.eq(2).all()
