"""Settings of the law tests."""

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """The tiny model's products are too small to share out; on a busy machine threads that wait for one
    another made these tests thirty times slower."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


ALL_FORMS = ("test_law_1_company", "test_law_3_micro_batches", "test_isolation")
# against another library's gradients, in the form that a GPU takes too
BOTH_FORMS = ("test_law_2_trl", "test_law_6_peft")
BOTH_LAYERS = ("test_law_4_packing", "test_recompute")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """The adapter's product as on a GPU (one block and a mask) and as on a CPU (a block for each stretch), both in
    fused layers; and the layers of transformers, as for architectures that have no fused one.

    Planted faults go where they can show: in the form with the mask, which lets tokens of all runs meet.
    """
    if "fault" in metafunc.function.__name__:
        metafunc.parametrize("product_form", ["mask"], indirect=True)
    elif (name := metafunc.module.__name__.rpartition(".")[2]) in ALL_FORMS:
        metafunc.parametrize("product_form", ["mask", "blocks", "transformers"], indirect=True)
    elif name in BOTH_FORMS:
        metafunc.parametrize("product_form", ["mask", "blocks"], indirect=True)
    elif name in BOTH_LAYERS:
        metafunc.parametrize("product_form", ["blocks", "transformers"], indirect=True)


@pytest.fixture(autouse=True)
def product_form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    form = getattr(request, "param", "blocks")
    if form == "transformers":
        monkeypatch.setattr("pronk.model.fused.LAYERS", ())
    if form == "mask":
        monkeypatch.setattr("pronk.model.route.MOST_STRETCHES", 0)
