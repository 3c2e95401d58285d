"""The datasheet's numbers follow from each other, and its page can be read with and without eyes."""

from __future__ import annotations

import dataclasses
import itertools
import json
from pathlib import Path

import pytest
from PIL import Image

from labsupport.anatomy import model_sheet, parameters
from labsupport.machine import datasheet, sheet_picture
from labsupport.machine.bounds import bound
from labsupport.machine.measurement import Measurement
from labsupport.machine.sheet import Datasheet, bandwidth_of

GIB = 2**30


@pytest.fixture(scope="module")
def sheet(tmp_path_factory: pytest.TempPathFactory) -> Datasheet:
    return datasheet(quick=True, folder=tmp_path_factory.mktemp("disk"))


def test_what_is_measured_is_there_and_plain_data_holds_all(sheet: Datasheet) -> None:
    data = json.loads(json.dumps(sheet.as_json()))

    names = [one["name"] for one in data["measurements"]]
    assert names[:4] == ["disk, cold", "disk, in the page cache", "memory read", "matrix product, float32"]
    assert data["machine"]["memory_bytes"] == sheet.machine.memory_bytes
    assert data["tier"] == sheet.machine.tier
    assert all(one["source"].startswith("https://") for one in data["vendors"])
    assert sheet.measured("memory read").best == data["measurements"][2]["best"]


def test_a_bound_is_the_bandwidth_divided_by_the_bytes_that_one_token_reads(sheet: Datasheet) -> None:
    for one in sheet.bounds:
        assert one.tokens_per_second * one.read_bytes_per_token == pytest.approx(
            sheet.memory_bytes_per_second
        )

    small, large, _ = sheet.bounds
    assert small.tokens_per_second > large.tokens_per_second
    assert small.read_bytes_per_token == small.weight_bytes  # its embedding is its output matrix too
    table = parameters(model_sheet("llama-3.1-8b").shape).embedding * 4.5 / 8
    assert large.weight_bytes - large.read_bytes_per_token == table


def test_a_bound_uses_the_best_sample_of_the_memory_that_decodes() -> None:
    host = Measurement("memory read", "GB/s", (10.0, 12.0))
    device = Measurement("memory read, cuda", "GB/s", (900.0, 880.0))

    assert bandwidth_of([host]) == 12e9
    assert bandwidth_of([host, device]) == 900e9


def test_a_model_fits_with_its_kv_cache_or_not_at_all() -> None:
    need = bound("llama-3.1-8b", memory_bytes=64 * GIB, bandwidth_bytes_per_second=1e9)

    just = bound("llama-3.1-8b", memory_bytes=need.needed_bytes, bandwidth_bytes_per_second=1e9)
    short = bound("llama-3.1-8b", memory_bytes=need.needed_bytes - 1, bandwidth_bytes_per_second=1e9)
    assert (need.fits, just.fits, short.fits) == (True, True, False)
    assert need.needed_bytes > need.weight_bytes


def test_a_notebook_shows_a_picture_with_alt_text_and_the_numbers_as_text(sheet: Datasheet) -> None:
    bundle = sheet._repr_mimebundle_()

    assert 'alt="Datasheet of' in str(bundle["text/html"])
    for one in sheet.measurements:
        assert one.name in sheet_picture.alt(sheet)
        assert one.name in str(bundle["text/plain"])
    assert str(sheet) == bundle["text/plain"]


@pytest.mark.parametrize("ending", [".png", ".svg"])
def test_the_page_is_drawn_into_the_file_that_was_named(
    sheet: Datasheet, ending: str, tmp_path: Path
) -> None:
    file = tmp_path / f"sheet{ending}"

    sheet_picture.save(sheet, file)

    if ending == ".png":
        assert Image.open(file).size == (1200, 768)
    else:
        assert "<svg" in file.read_text()


@pytest.mark.parametrize("name", ["sheet.doc", "sheet", "missing/sheet.png"])
def test_a_file_that_cannot_be_drawn_into_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(sheet_picture.PictureNotWritable) as refused:
        sheet_picture.writable(tmp_path / name)

    assert refused.value.allowed or refused.value.remedy


def test_every_tier_can_be_drawn(sheet: Datasheet, tmp_path: Path) -> None:
    from labsupport.machine.nvidia import Gpu

    gpu = Gpu("NVIDIA H100 80GB HBM3", 80 * GIB, "550.54", "9.0")
    for machine in (
        dataclasses.replace(sheet.machine, gpus=(gpu,)),
        dataclasses.replace(sheet.machine, unified_memory=True, memory_limited_by_container=True),
    ):
        other = dataclasses.replace(sheet, machine=machine)
        assert machine.tier in ("gpu", "apple")
        assert str(other) != str(sheet)
        sheet_picture.save(other, tmp_path / f"{machine.tier}.png")


def test_no_text_of_the_page_covers_another_or_leaves_the_page(sheet: Datasheet) -> None:
    from matplotlib.axes import Axes
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    product = Measurement("matrix product, bfloat16, cuda", "GFLOP/s", (650_000.0,))
    machine = dataclasses.replace(sheet.machine, unified_memory=True)  # the tier with the longest line
    page = sheet_picture.draw(
        dataclasses.replace(sheet, machine=machine, measurements=(*sheet.measurements, product))
    )
    canvas = FigureCanvasAgg(page)
    canvas.draw()

    axes = page.findobj(Axes)
    drawn = [one for each in axes for one in (*each.texts, *(each.get_yticklabels() if each.axison else ()))]
    boxes = {one: one.get_window_extent(canvas.get_renderer()) for one in drawn}
    assert [one.get_text() for one, box in boxes.items() if box.x0 < 0 or box.x1 > page.bbox.x1] == []
    pairs = itertools.combinations(boxes.items(), 2)
    assert [(a.get_text(), b.get_text()) for (a, one), (b, other) in pairs if one.overlaps(other)] == []
