"""Rates are counted honestly: after warm-up, after the device is done, and against the clock."""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import pytest

from labsupport.machine import measure
from labsupport.machine.measure import MIB
from labsupport.machine.measurement import Measurement, durations


def test_a_device_that_returns_early_is_waited_for() -> None:
    pending: list[float] = []

    def start() -> None:
        pending.append(0.3)

    def wait() -> None:
        while pending:
            time.sleep(pending.pop())

    waited = durations(start, synchronize=wait, least=3, most=3)
    assert min(waited) >= 0.3

    unwaited = durations(start, least=3, most=3)
    assert statistics.median(unwaited) < 0.3


def test_warm_up_runs_do_not_count() -> None:
    cost = iter([0.5, 0.5, 0.0, 0.0, 0.0])

    seconds = durations(lambda: time.sleep(next(cost)), warm_up=2, least=3, most=3)

    assert len(seconds) == 3
    assert statistics.median(seconds) < 0.5


def test_the_least_number_of_runs_is_made_however_long_they_take_and_the_budget_ends_the_rest() -> None:
    assert len(durations(lambda: time.sleep(0.01), warm_up=0, least=4, most=50, budget_seconds=0)) == 4
    assert len(durations(lambda: time.sleep(0.01), warm_up=0, least=1, most=50, budget_seconds=0.1)) < 50


def test_median_best_and_spread_are_of_the_samples() -> None:
    measured = Measurement("x", "GB/s", (4.0, 1.0, 2.0))

    assert (measured.median, measured.best, measured.spread) == (2.0, 4.0, 1.5)


def test_the_cold_read_comes_from_storage_and_leaves_no_file(tmp_path: Path) -> None:
    cold, warm = measure.disk_read(tmp_path, file_bytes=8 * MIB, repeats=2)

    assert len(cold.samples) == len(warm.samples) == 2
    assert min(cold.samples + warm.samples) > 0
    assert list(tmp_path.iterdir()) == []
    assert cold.note


def test_a_disk_without_room_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")

    with pytest.raises(OSError, match="file"):
        measure.disk_read(tmp_path / "file" / "folder", file_bytes=MIB)


def test_memory_rates_count_the_bytes_that_moved() -> None:
    started = time.perf_counter()
    read, copy = measure.memory_read(array_bytes=32 * MIB), measure.memory_copy(array_bytes=32 * MIB)
    spent = time.perf_counter() - started

    # What was moved in the counted runs cannot have taken longer than the whole test.
    assert sum(32 * MIB / (rate * 1e9) for rate in read.samples) < spent
    assert sum(2 * 32 * MIB / (rate * 1e9) for rate in copy.samples) < spent
    assert len(read.samples) >= 5


def test_a_matrix_product_counts_two_operations_per_multiplication_and_says_its_size() -> None:
    started = time.perf_counter()
    product = measure.matrix_product(budget_seconds=0.2)
    spent = time.perf_counter() - started

    side = int(product.note.split(" × ")[0])
    assert side >= 256
    assert sum(2 * side**3 / (rate * 1e9) for rate in product.samples) < spent


@pytest.mark.gpu
def test_a_gpu_reads_its_memory_faster_than_it_is_filled() -> None:
    read, (there, back) = measure.memory_read("cuda"), measure.host_to_device("cuda")

    assert read.median > there.median
    assert read.median > back.median
