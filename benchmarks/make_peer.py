"""Make an environment for `llama_cpp.server`, outside the project's: `python -m benchmarks.make_peer`.

It gets llama-cpp-python of the project's own version. Where set-up kept the wheel that it built, that one is
taken, so that both run the very same library; else pip builds it, which takes minutes and a C++ compiler.
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path

from labsupport.machine.setup import llama_wheel
from labsupport.models.cache import cache_directory


def environment_python() -> Path:
    """Its interpreter, whether or not it is there."""
    return cache_directory() / "benchmarks" / "llama-cpp-server" / "bin" / "python"


def main() -> int:
    python = environment_python()
    folder = python.parents[1]
    version = metadata.version("llama-cpp-python")
    arguments = llama_wheel.cmake_arguments(cuda=False)
    print(f"making {folder} with llama-cpp-python {version}")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    command = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    wheel = llama_wheel.kept(llama_wheel.folder(cache_directory(), version=version, arguments=arguments))
    if wheel:
        command += ["--find-links", str(wheel.parent)]
    else:
        print("no wheel was kept by set-up, so it is compiled: minutes…")
    command.append(f"llama-cpp-python[server]=={version}")
    environment = os.environ | {"CMAKE_ARGS": f"{arguments} {os.environ.get('CMAKE_ARGS', '')}".strip()}
    subprocess.run(command, check=True, env=environment)
    subprocess.run([str(python), "-c", "import llama_cpp.server.app"], check=True)
    print(f"done: {python}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
