"""A GPU that is not there: an H200 (sm_90) for torch, Triton and Inductor, which then write code for it."""

from __future__ import annotations

import types
from collections.abc import Sequence
from typing import Any


def pretend_gpu() -> None:
    """Tells torch and Triton of an H200 that is not there, for the rest of the process."""
    import torch._functorch.config
    import torch._inductor.config
    import triton
    from torch._dynamo import device_interface
    from triton.backends.compiler import GPUTarget

    # Nothing from an earlier process: code is wanted, from this torch and these settings.
    torch._inductor.config.fx_graph_cache = False
    torch._functorch.config.enable_autograd_cache = False
    torch._inductor.config.compile_threads = 1

    properties = types.SimpleNamespace(
        name="NVIDIA H200",
        major=9,
        minor=0,
        multi_processor_count=132,
        regs_per_multiprocessor=65536,
        max_threads_per_multi_processor=2048,
        max_threads_per_block=1024,
        warp_size=32,
        total_memory=139 * 2**30,
        L2_cache_size=60 * 2**20,
        shared_memory_per_block=49152,
        shared_memory_per_block_optin=232448,
        shared_memory_per_multiprocessor=233472,
        gcnArchName="",
    )

    def always(value: Any) -> Any:
        return staticmethod(lambda *args, **options: value)

    patches: dict[str, Any] = {
        "get_device_properties": properties,
        "get_compute_capability": 90,
        "get_multi_processor_count": 132,
        "current_device": 0,
        "device_count": 1,
        "is_available": True,
        "is_bf16_supported": True,
        "is_triton_capable": True,
        "raise_if_triton_unavailable": None,
    }
    interface = device_interface.CudaInterface
    for name, value in patches.items():
        setattr(interface, name, always(value))
    for name in ("get_device_properties", "current_device"):
        setattr(interface.Worker, name, always(patches[name]))
    for name in ("get_device_properties", "current_device", "device_count", "is_bf16_supported"):
        setattr(torch.cuda, name, lambda *args, value=patches[name], **options: value)
    torch.cuda.get_device_capability = lambda *args: (9, 0)
    torch.cuda.get_device_name = lambda *args: properties.name

    driver = types.SimpleNamespace(
        get_current_target=lambda: GPUTarget("cuda", 90, 32),
        get_current_device=lambda: 0,
        get_device_capability=lambda *args: (9, 0),
        get_active_torch_device=lambda: torch.device("cuda", 0),
    )
    triton.runtime.driver.set_active(driver)
    # cuDNN would be asked which layout a convolution wants; in half precision, that of its input.
    torch._C._conv_determine_backend_memory_format = lambda *args, **options: torch.channels_last


def pretend_timings() -> None:
    """Lets autotuning choose without a GPU: Triton's template for each matrix product, else the library."""
    from torch._inductor.select_algorithm import add_preprocessing_fn

    def chosen(choices: Sequence[Any]) -> list[Any]:
        # What is alone is not timed. Of the templates any will do: they differ in the sizes of tiles.
        templates = (each for each in choices if each.name.startswith(("triton_mm_", "triton_bmm_")))
        return [next(templates, choices[0])]

    add_preprocessing_fn(chosen)
