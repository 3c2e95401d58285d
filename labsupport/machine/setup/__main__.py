"""`python -m labsupport.machine.setup`: from a clone to a working course, with whatever Python started it."""

from __future__ import annotations

import argparse
import fcntl
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from labsupport.errors import LabsupportError
from labsupport.machine import nvidia
from labsupport.machine.setup import steps
from labsupport.machine.setup.session import Session

INTERRUPTED = 130


def main(argv: Sequence[str] | None = None) -> int:
    """Do every step that is not done yet; returns 0, 1 after a failure, 130 if it was interrupted."""
    arguments = _arguments(argv)
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with _alone(arguments.root.resolve()) as root:
            return _set_up(root, arguments)
    except LabsupportError as error:
        print(f"\n{error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("\nInterrupted. Run the same command again: it goes on from here.", file=sys.stderr)
        return INTERRUPTED


def _set_up(root: Path, arguments: argparse.Namespace) -> int:
    accelerator = arguments.accelerator
    gpu = nvidia.is_present() if accelerator == "auto" else accelerator == "cuda"
    session = Session(root=root, gpu=gpu, cpu_index=arguments.torch_cpu_index, steps=7)
    try:
        steps.look(session)
        steps.make_venv(session)
        torch = steps.choose_torch(session)
        building = steps.start_llama(session)
        steps.install_packages(session, torch, beside=building)
        steps.install_course(session, building)
        steps.prepare_model(session)
    finally:
        session.stop()
    session.board.done("The environment is ready: .venv")
    return 0


def _arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make setup", description="Make and fill the course's environment.")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="the clone (default: here)")
    parser.add_argument(
        "--torch-cpu-index", required=True, metavar="URL", help="where CPU builds of torch are"
    )
    parser.add_argument("--accelerator", choices=("auto", "cpu", "cuda"), default="auto")
    return parser.parse_args(argv)


@contextmanager
def _alone(root: Path) -> Iterator[Path]:
    """Wait until no other set-up runs in this clone."""
    lock = root / ".cache" / "setup" / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with lock.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another set-up runs in this folder; waiting for it to end …", flush=True)
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield root


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
