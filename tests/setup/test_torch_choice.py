"""Which torch a computer gets, asked of a real pip over HTTP, whatever this pip is configured to."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from labsupport.machine.setup import torch_build
from labsupport.machine.setup.session import Session
from labsupport.machine.setup.torch_build import NoCpuBuild, choose
from tests.setup.fake_index import CUDA_NEEDS, Wheel, serving

ROOT = Path(__file__).parents[2]
CUDA = Wheel("2.13.0", CUDA_NEEDS)
CPU = Wheel("2.13.0+cpu")
UNLABELLED_CPU = Wheel("2.13.0", ("numpy",))


@pytest.fixture
def session(tmp_path, monkeypatch):
    """A set-up in a folder of its own, with this test's pip and no pip configuration but the test's."""
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_RETRIES", "0")
    monkeypatch.setenv("PIP_CACHE_DIR", str(tmp_path / "pip"))
    for file in ("pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, tmp_path)
    session = Session(root=tmp_path, gpu=False, cpu_index="", steps=1)
    session.python = Path(sys.executable)
    yield session
    session.stop()


@pytest.fixture
def own_index(monkeypatch):
    """Says which index the computer's own pip configuration names."""
    return lambda index: monkeypatch.setenv("PIP_INDEX_URL", index.url)


def installed_needs(session: Session, source: torch_build.Source, folder: Path) -> str:
    """Install torch from where it was chosen to come from; what does that build need?"""
    words = ["install", "--no-deps", "--target", str(folder), *source.index_options, source.requirement]
    status, output = session.ask_pip(words)
    assert status == 0, output
    program = "import torch; print(torch.__version__, *torch.NEEDS)"
    return subprocess.run(
        [sys.executable, "-S", "-c", program], env={"PYTHONPATH": str(folder)}, capture_output=True, text=True
    ).stdout.strip()


@pytest.mark.parametrize(
    ("own", "takes", "from_own"),
    [
        pytest.param([CUDA], "2.13.0+cpu", False, id="a CUDA build"),
        pytest.param([], "2.13.0+cpu", False, id="nothing"),
        pytest.param([Wheel("2.12.0+cpu")], "2.13.0+cpu", False, id="another version"),
        pytest.param([CUDA, CPU], "2.13.0+cpu", True, id="both, labelled"),
        pytest.param(
            [Wheel("2.13.0+cu130", CUDA_NEEDS), CPU], "2.13.0+cpu", True, id="both, CUDA newer by name"
        ),
        pytest.param([UNLABELLED_CPU], "2.13.0 numpy", True, id="a CPU build without a label"),
    ],
)
def test_without_a_gpu_torch_is_a_cpu_build_whatever_the_own_index_offers(
    session, own_index, tmp_path, own, takes, from_own
):
    with serving(own=own, cpu=[CPU]) as indexes:
        own_index(indexes["own"])
        source = choose(
            version="2.13.0", gpu=False, cpu_index=indexes["cpu"].url, pip=session.ask_pip, system="Linux"
        )
        assert installed_needs(session, source, tmp_path / "site") == takes
    assert (source.index_options == ()) == from_own
    assert CUDA.filename not in indexes["own"].sent_bytes or from_own


def test_a_cuda_build_without_separate_metadata_is_not_downloaded_to_read_it(session, own_index):
    large = Wheel("2.13.0", CUDA_NEEDS, metadata=False, padding_bytes=64 << 20)
    with serving(own=[large], cpu=[CPU]) as indexes:
        own_index(indexes["own"])
        source = choose(
            version="2.13.0", gpu=False, cpu_index=indexes["cpu"].url, pip=session.ask_pip, system="Linux"
        )
    assert source.index_options == ("--index-url", indexes["cpu"].url)
    assert indexes["own"].sent_bytes[large.filename] < (16 << 20)


@pytest.mark.parametrize("offered", [[], [CUDA], [Wheel("2.13.0+cu130", CUDA_NEEDS)]])
def test_without_any_cpu_build_nothing_is_installed_and_the_variable_to_set_is_named(
    session, own_index, offered
):
    with serving(own=[CUDA], cpu=offered) as indexes:
        own_index(indexes["own"])
        with pytest.raises(NoCpuBuild, match="TORCH_CPU_INDEX"):
            choose(
                version="2.13.0", gpu=False, cpu_index=indexes["cpu"].url, pip=session.ask_pip, system="Linux"
            )


def test_an_index_that_cannot_be_reached_is_named(session, own_index):
    with serving(own=[CUDA]) as indexes:
        own_index(indexes["own"])
        with pytest.raises(NoCpuBuild, match=re.escape("127.0.0.1:9/cpu")):
            choose(
                version="2.13.0",
                gpu=False,
                cpu_index="http://127.0.0.1:9/cpu",
                pip=session.ask_pip,
                system="Linux",
            )


def test_with_a_gpu_pip_takes_the_cuda_build_from_its_own_index(session, own_index, tmp_path):
    with serving(own=[CUDA], cpu=[CPU]) as indexes:
        own_index(indexes["own"])
        source = choose(version="2.13.0", gpu=True, cpu_index=indexes["cpu"].url, pip=session.ask_pip)
        assert "nvidia-cublas" in installed_needs(session, source, tmp_path / "site")
    assert indexes["cpu"].sent_bytes == {}


def test_on_a_mac_pip_takes_the_only_build_there_is(session):
    source = choose(version="2.13.0", gpu=False, cpu_index="", pip=session.ask_pip, system="Darwin")
    assert source == torch_build.Source("torch==2.13.0", (), source.reason)
