"""`make image-test`: build the image for real, run it, and look at it from outside.

Not one of the default tests: it needs buildah, root and debootstrap (or a base image or a folder with one
in `IMAGE_BASE`), several GB of disk and many minutes. No Docker engine is needed. The build gets this
computer's pip configuration, with the folders and certificates that it names, and nothing of that stays in
the image. A folder in `IMAGE_WHEELS` is offered to pip as well: with a wheel of llama-cpp-python in it,
nothing is compiled.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MIRROR = [address for address in (os.environ.get("DEBIAN_MIRROR"),) if address]  # else debootstrap knows one
BASE = "localhost/base"
IMAGE = "localhost/under-the-endpoint"
FOLDER = re.compile(r"(?:(?<=file://)|(?<!\S))/[^\s/]\S*")
SECONDS_TO_BUILD = 3600
SECONDS_TO_START = 120

pytestmark = pytest.mark.timeout(SECONDS_TO_BUILD + 600)


class Builder:
    """buildah with a storage of its own."""

    def __init__(self, folder: Path) -> None:
        self.words = ["buildah", "--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        self.words += ["--storage-driver", "vfs"]

    def __call__(self, *words: str | Path, timeout: float = 300) -> str:
        print("+ buildah", shlex.join(map(str, words)), flush=True)
        command = [*self.words, *map(str, words)]
        result = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=timeout, cwd=ROOT)
        assert result.returncode == 0, result.stdout[-4000:]
        return result.stdout.strip()


def pip_configuration(folder: Path) -> Iterator[str]:
    """Options that show the build this computer's pip configuration and all that it names."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=True
    )
    settings = {}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        settings[key.rpartition(".")[2]] = value.strip("'")
    if wheels := os.environ.get("IMAGE_WHEELS"):
        settings["find-links"] = f"{settings.get('find-links', '')} {wheels}"
    if certificates := settings.get("cert"):
        # Shown under a name of their own: the build installs a file where most systems have theirs.
        settings["cert"] = "/etc/pip-certificates.pem"
        yield from ("--volume", f"{certificates}:{settings['cert']}:ro")
    lines = [f"{key} = {' '.join(value.split())}" for key, value in settings.items() if key != "no-cache-dir"]
    (folder / "pip.conf").write_text("[global]\n" + "\n".join(lines) + "\n")
    yield from ("--volume", f"{folder / 'pip.conf'}:/etc/pip.conf:ro")
    for path in sorted({Path(hit) for hit in FOLDER.findall(" ".join(settings.values()))}):
        # A simple index points at files beside it, so all of its folder is shown.
        shown = path.parent if path.name == "simple" else path
        if shown.is_dir():
            yield from ("--volume", f"{shown}:{shown}:ro")


@pytest.fixture(scope="module")
def builder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("image")
    yield Builder(folder)
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def base(builder, tmp_path_factory):
    """A Debian base: the image or the folder that is named, or one made from the distribution's packages."""
    given = os.environ.get("IMAGE_BASE", "")
    if given and not Path(given).is_dir():
        return given
    tree = Path(given) if given else tmp_path_factory.mktemp("base") / "tree"
    if not given:
        subprocess.run(["debootstrap", "--variant=minbase", "bookworm", tree, *MIRROR], check=True)
    container = builder("from", "scratch")
    builder("add", "--quiet", container, tree, "/")
    builder("commit", "--quiet", "--rm", container, BASE)
    return BASE


@pytest.fixture(scope="module")
def container(builder, base, tmp_path_factory):
    """A container of the image, which was built from the working tree."""
    options = [
        "--isolation",
        "chroot",
        "--network",
        "host",
        "--format",
        "docker",
        "--build-arg",
        f"BASE={base}",
    ]
    options += pip_configuration(tmp_path_factory.mktemp("pip"))
    started = time.monotonic()
    builder("build", *options, "--tag", IMAGE, ".", timeout=SECONDS_TO_BUILD)
    print(f"built in {time.monotonic() - started:.0f} s", flush=True)
    return builder("from", IMAGE)


def run(builder: Builder, container: str, *words: str, environment: tuple[str, ...] = ()) -> str:
    return builder("run", "--isolation", "chroot", "--network", "host", *environment, container, "--", *words)


def test_the_image_says_who_runs_what_and_how_to_tell_that_it_is_well(builder, container):
    configuration = json.loads(builder("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    assert configuration["User"] == "reader"
    assert configuration["Cmd"][:2] == ["jupyter", "lab"]
    assert "JUPYTER_PORT" in configuration["Healthcheck"]["Test"][1]


def test_nothing_runs_as_root_and_the_doctor_finds_the_course_well(builder, container):
    assert int(run(builder, container, "id", "-u")) != 0
    assert "ok" in run(builder, container, "labsupport", "doctor")


def test_torch_is_a_cpu_build_and_the_model_is_there(builder, container):
    program = "import torch, labsupport.models as m; print(torch.version.cuda, m.path('pocket').exists())"
    assert run(builder, container, "python", "-c", program).splitlines()[-1] == "None True"


def test_jupyterlab_answers_and_the_health_check_sees_it(builder, container):
    configuration = json.loads(builder("inspect", "--type", "image", IMAGE))["Docker"]["config"]
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    environment = ("--env", f"JUPYTER_PORT={port}", "--env", "JUPYTER_TOKEN=probe")
    words = ["run", "--isolation", "chroot", "--network", "host", *environment, container, "--"]
    lab = subprocess.Popen([*builder.words, *words, *configuration["Cmd"]], start_new_session=True)
    try:
        address = f"http://127.0.0.1:{port}/lab/tree/lessons/00_start.ipynb?token=probe"
        assert "JupyterLab" in answer(address, lab)
        check = configuration["Healthcheck"]["Test"][1]
        run(builder, container, "sh", "-c", check, environment=environment)
    finally:
        os.killpg(lab.pid, 15)
        lab.wait(timeout=30)
    with pytest.raises(AssertionError):
        run(builder, container, "sh", "-c", check, environment=environment)


def answer(address: str, process: subprocess.Popen[bytes]) -> str:
    """The page at this address, as soon as there is one."""
    deadline = time.monotonic() + SECONDS_TO_START
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5) as page:
                return str(page.read().decode())
        except OSError:
            assert process.poll() is None, "JupyterLab ended"
            assert time.monotonic() < deadline, "JupyterLab does not answer"
            time.sleep(1)
