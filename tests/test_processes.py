"""How work is cut for hand-out."""

import pytest

from diffcorr.errors import DiffcorrError
from diffcorr.processes import Processes, guided_chunks, launch


@pytest.mark.parametrize("size", [2, 3, 8])
@pytest.mark.parametrize("costs", [[1.0] * 100, [float(n % 7) for n in range(50)], [0.0] * 5, [3.0], []])
def test_chunks_are_neighbours_and_cover_everything_once(costs, size):
    chunks = guided_chunks(costs, size)
    assert [place for chunk in chunks for place in chunk] == list(range(len(costs)))
    left = sum(costs)
    for chunk in chunks:
        cost = sum(costs[place] for place in chunk)
        assert len(chunk) == 1 or cost <= left / (2 * size) + 1e-9
        left -= cost


def test_chunks_by_hand():
    # 16 items, 2 processes: a quarter of what is left each time
    assert [len(chunk) for chunk in guided_chunks([1.0] * 16, 2)] == [4, 3, 2, 1, 1, 1, 1, 1, 1, 1]


def test_one_process_gets_everything_in_order():
    alone = launch({"accelerator": "cpu", "devices": 1})
    assert type(alone) is Processes
    assert list(alone.share([5.0, 1.0, 3.0])) == [0, 1, 2]
    assert (alone.is_main, alone.size, alone.wait(), alone.gather(b"x")) == (True, 1, 0.0, [b"x"])
    assert alone.tell(lambda: [1]) == [1]


def test_a_strategy_that_splits_the_model_is_refused():
    with pytest.raises(DiffcorrError, match=r"expected trainer.strategy ddp .* found 'fsdp'"):
        launch({"accelerator": "cpu", "devices": 2, "strategy": "fsdp"})
