"""Every lesson with another model than the bundled one: `LABSUPPORT_MODEL` is one setting, no page changes.

Right means that each cell of each lesson runs, within the time that a lesson has, with a checkpoint that is
nobody's: other shape, random weights, answers that mean nothing.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from labsupport.models.catalogue import BUNDLED_WEIGHTS
from labsupport.notebook.build import converted, execute
from tests.course.test_notebooks import LESSONS, SOURCES


@pytest.fixture(scope="module")
def another_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face directory: two layers of random numbers behind the tokenizer of the bundled model."""
    folder = tmp_path_factory.mktemp("models") / "another"
    shutil.copytree(BUNDLED_WEIGHTS, folder, ignore=lambda _, names: [n for n in names if "token" not in n])
    shutil.copy(BUNDLED_WEIGHTS / "chat_template.jinja", folder)
    config = LlamaConfig.from_pretrained(BUNDLED_WEIGHTS, num_hidden_layers=2, intermediate_size=512)
    torch.manual_seed(0)
    LlamaForCausalLM(config).to(torch.bfloat16).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.stem)
def test_every_cell_runs_with_another_model(source, another_model, monkeypatch):
    monkeypatch.setenv("LABSUPPORT_MODEL", str(another_model))
    monkeypatch.setenv("LABSUPPORT_CACHE", str(another_model.parent / "cache"))

    notebook = converted(source)
    execute(notebook, folder=LESSONS)

    if "LABSUPPORT_MODEL" in source.read_text(encoding="utf-8"):
        shown = str([cell.get("outputs") for cell in notebook.cells])
        parameters = sum(p.numel() for p in LlamaForCausalLM.from_pretrained(another_model).parameters())
        assert f"loaded {parameters:,} parameters" in shown
