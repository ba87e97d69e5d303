"""``import senet`` is cheap and touches nothing."""

import ast

import senet
from tests.programs import program


def _run(code: str) -> str:
    return program("-c", code).strip()


def test_every_public_name_is_there() -> None:
    for name in senet.__all__:
        assert getattr(senet, name) is not None
    assert set(senet.__all__) <= set(dir(senet))


def test_an_unknown_name_is_an_attribute_error() -> None:
    assert not hasattr(senet, "insert_everything")


def test_types_see_the_names_that_run() -> None:
    """The imports for type checkers and the table that resolves names say the same."""
    import ast
    from pathlib import Path

    tree = ast.parse(Path(senet.__file__).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    typed = {
        alias.asname for node in guarded.body if isinstance(node, ast.ImportFrom) for alias in node.names
    }
    assert typed == set(senet.__all__) - {"__version__"}


def test_it_imports_no_optional_package_and_not_even_torch() -> None:
    found = _run("import sys, senet; print([m for m in sys.modules if '.' not in m])")
    for package in ("torch", "torchvision", "PIL", "sklearn", "jsonargparse", "tqdm", "yaml"):
        assert f"'{package}'" not in found


def test_the_block_needs_torch_alone() -> None:
    found = _run(
        "import sys, torch; had = set(sys.modules); import senet; "
        "senet.SqueezeExcitation(16), senet.functional, senet.kernels; "
        "print({m.split('.')[0] for m in set(sys.modules) - had} - set(sys.stdlib_module_names))"
    )
    # torch itself may load numpy and tqdm when it is first used.
    assert ast.literal_eval(found) - {"torch", "numpy", "tqdm"} == {"senet"}


def test_it_adds_less_than_half_a_second_of_work_to_torch() -> None:
    """Of the processor's time: the clock also counts what others do."""
    code = (
        "import time, torch; t = time.process_time(); "
        "import senet; senet.SqueezeExcitation, senet.build; print(time.process_time() - t)"
    )
    assert min(float(_run(code)) for _ in range(3)) < 0.5


def test_no_gpu_is_touched() -> None:
    assert (
        _run("import senet, torch; senet.build('se_resnet20'); print(torch.cuda.is_initialized())") == "False"
    )
