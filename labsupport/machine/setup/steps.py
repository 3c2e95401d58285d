"""The steps from a clone to a working course, in order; each can be interrupted and done again.

Right means: nothing is downloaded before `look` has found the computer fit, and a step that is done costs
nothing the next time.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from labsupport.errors import LabsupportError
from labsupport.machine.setup import llama_wheel, needs, torch_build
from labsupport.machine.setup.progress import Job
from labsupport.machine.setup.requirements import CONSTRAINTS
from labsupport.machine.setup.session import Session

FREE_BYTES = {"cpu": 5 * 2**30, "cuda": 16 * 2**30}
MODEL = ("pocket", "q4_k_m")
LAB_SETTINGS = Path(__file__).with_name("overrides.json")
"""Defaults of JupyterLab: without them it asks, over the text of a lesson, whether to fetch its news."""


def look(session: Session) -> None:
    """Stop, before anything is downloaded, if something is missing; name all of it, and what mends it."""
    session.board.heading("look at this computer")
    lacks = needs.lacks(
        root=session.root,
        cache=session.cache,
        free_bytes=0 if session.stamps.knows("packages") else FREE_BYTES["cuda" if session.gpu else "cpu"],
        compiler=llama_wheel.kept(session.llama_folder) is None,
    )
    if lacks:
        lines = "\n".join(f"  - {lack.problem}\n    {lack.remedy}" for lack in lacks)
        raise LabsupportError(
            f"Nothing was downloaded, because something is missing:\n{lines}",
            remedy="run the commands above, then the same make command again",
        )
    session.board.note(
        "an NVIDIA GPU is present" if session.gpu else "no NVIDIA GPU: everything runs on the CPU"
    )


def make_venv(session: Session) -> None:
    """`.venv` with the pinned pip and setuptools; one that works is kept, one that is broken is replaced."""
    base = [f"{name}=={session.requirements.version(name)}" for name in ("pip", "setuptools")]

    def act() -> str:
        if not _works(session.python):
            shutil.rmtree(session.venv, ignore_errors=True)
            session.stamps.forget_all()
            session.run("venv", sys.executable, "-m", "venv", session.venv)
        session.pip("install", *base)
        return str(session.python)

    inputs = [session.venv, base]
    session.step("venv", "make .venv", inputs, act, still_there=lambda python: _works(Path(python)))


def choose_torch(session: Session) -> torch_build.Source:
    """The build of torch for this computer."""
    version = session.requirements.version("torch")

    def act() -> dict[str, object]:
        source = torch_build.choose(
            version=version, gpu=session.gpu, cpu_index=session.cpu_index, pip=session.ask_pip
        )
        return {"requirement": source.requirement, "options": source.index_options, "reason": source.reason}

    inputs = [version, session.gpu, session.cpu_index]
    left = session.step("torch", f"choose the build of torch {version}", inputs, act)
    session.board.note(f"{left['requirement']}: {left['reason']}")
    return torch_build.Source(left["requirement"], tuple(left["options"]), left["reason"])


def start_llama(session: Session) -> Job | None:
    """Begin to compile llama-cpp-python, to go on beside the downloads; None if its wheel is there."""
    session.board.heading("compile llama-cpp-python (it goes on beside the next step)")
    if wheel := llama_wheel.kept(session.llama_folder):
        session.board.note(f"done before: {wheel}")
        return None
    draft = _draft(session)
    shutil.rmtree(draft, ignore_errors=True)
    version = session.requirements.version("llama-cpp-python")
    session.board.note(f"CMAKE_ARGS={session.llama_arguments}")
    options = (
        "--no-deps",
        "--no-cache-dir",
        "--verbose",
        "--build-constraint",
        CONSTRAINTS,
        "--wheel-dir",
        draft,
    )
    return session.start(
        "llama-cpp-python",
        *(session.python, "-m", "pip", "wheel", *options, f"llama-cpp-python=={version}"),
        CMAKE_ARGS=session.llama_arguments,
    )


def install_packages(session: Session, torch: torch_build.Source, *, beside: Job | None) -> None:
    """Torch from its source, then every other package by name, all at the pinned versions."""
    names = [name for name in session.requirements.names if name not in ("torch", "llama-cpp-python")]

    def act() -> bool:
        # PyTorch's index has other versions of other packages: what torch needs comes with the rest.
        deps = ["--no-deps"] if torch.index_options else []
        session.pip(
            "install", "-c", CONSTRAINTS, *deps, *torch.index_options, torch.requirement, beside=beside
        )
        session.pip("install", "-c", CONSTRAINTS, torch.requirement, *names, beside=beside)
        return True

    pins = sorted(session.requirements.pins.items())
    title = "install torch and the other packages, as pinned"
    inputs = [torch, names, pins]
    session.step("packages", title, inputs, act, still_there=lambda _: session.holds(["torch", *names]))


def install_course(session: Session, building: Job | None) -> None:
    """llama-cpp-python from its wheel, once that is there, the course itself, JupyterLab's defaults."""
    wheel = llama_wheel.kept(session.llama_folder)
    lab_settings = session.venv / "share" / "jupyter" / "lab" / "settings" / LAB_SETTINGS.name

    def act() -> str:
        found = wheel
        if building is not None:
            session.board.wait(building)
            found = llama_wheel.keep(_draft(session), session.llama_folder)
        assert found is not None  # either it was kept, or it was being built
        # The same version built with other flags is another build: pip alone would keep the old one.
        session.pip("install", "-c", CONSTRAINTS, found)
        session.pip("install", "--no-deps", "--force-reinstall", found)
        session.pip("install", "--no-deps", "--no-build-isolation", "--editable", session.root)
        session.pip("check")
        lab_settings.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(LAB_SETTINGS, lab_settings)
        return str(found)

    inputs = [session.llama_folder, (session.root / "pyproject.toml").read_text(), LAB_SETTINGS.read_text()]
    title = "install llama-cpp-python and the course itself"

    def is_there(_: object) -> bool:
        return lab_settings.exists() and session.holds(["llama-cpp-python"])

    session.step("course", title, inputs, act, still_there=is_there)


def prepare_model(session: Session) -> None:
    """The bundled model, quantized: the file that every lesson opens."""
    name, quant = MODEL
    weights = session.root / "labsupport" / "pocket" / "weights" / "model.safetensors"

    def act() -> str:
        words = ("-m", "labsupport", "models", "path", name, "--quant", quant)
        return session.run("model", session.python, *words).last_line()

    state = weights.stat() if weights.exists() else None
    inputs = [state and [state.st_size, state.st_mtime_ns], name, quant]
    title = f"prepare the bundled model ({name}, {quant})"
    session.step("model", title, inputs, act, still_there=lambda path: Path(path).exists())


def _draft(session: Session) -> Path:
    return session.llama_folder.with_name(session.llama_folder.name + ".draft")


def _works(python: Path) -> bool:
    """Whether this is an environment that can install packages, of a Python that is new enough."""
    program = "import sys, pip, json; print(json.dumps(sys.version_info[:2]))"
    try:
        result = subprocess.run([python, "-c", program], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return result.returncode == 0 and tuple(json.loads(result.stdout)) >= needs.OLDEST_PYTHON
