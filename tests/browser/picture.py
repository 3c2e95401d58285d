"""Take a picture of a notebook as JupyterLab shows it.

    python tests/browser/picture.py lessons/01_weights.ipynb out.png
    python tests/browser/picture.py lessons/01_weights.ipynb out.png --width 800 --run --slice 1600
    python tests/browser/picture.py lessons/01_weights.ipynb out.png --run --view explore_model_bytes

The notebook is copied, so nothing is written to the course. `--run` runs all cells first, so that widgets are
alive. `--slice` also cuts the picture into pieces of that height (out-01.png, …), easier to look at
than one of twenty thousand pixels. `--view` shows one screenful instead, from the cell that contains a text;
so the picture in the README was made.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).parent))

from jupyterlab_driver import COURSE, Notebook, browser_page, copy_course, running_lab

Image.MAX_IMAGE_PIXELS = None


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebook", type=Path, help="a notebook of the course, or any other")
    parser.add_argument("picture", type=Path, help="the PNG file to write")
    parser.add_argument("--width", type=int, default=1280, help="of the page, in pixels (%(default)s)")
    parser.add_argument("--run", action="store_true", help="run all cells first")
    parser.add_argument("--view", metavar="TEXT", help="one screenful, from the cell with this text on")
    parser.add_argument(
        "--slice", type=int, metavar="PIXELS", help="also cut the picture into pieces this high"
    )
    arguments = parser.parse_args()
    notebook = arguments.notebook.resolve()
    with tempfile.TemporaryDirectory() as folder:
        root = copy_course(Path(folder).resolve())
        file = notebook.relative_to(COURSE) if notebook.is_relative_to(COURSE) else Path(notebook.name)
        (root / file).parent.mkdir(parents=True, exist_ok=True)
        (root / file).write_bytes(notebook.read_bytes())
        with running_lab(root) as lab, browser_page(width=arguments.width) as page:
            opened = Notebook(page, lab, file.as_posix())
            if arguments.run:
                opened.run_all()
                print("".join(f"{error}\n" for error in opened.errors()), end="")
            if arguments.view:
                opened.view(opened.find_cell(arguments.view), arguments.picture)
            else:
                opened.picture(arguments.picture)
    print(arguments.picture)
    if arguments.slice:
        cut(arguments.picture, arguments.slice)
    return 0


def cut(picture: Path, height: int) -> None:
    """Write `picture` as pieces of `height` pixels beside it, and print their names."""
    whole = Image.open(picture)
    for number, top in enumerate(range(0, whole.height, height), start=1):
        piece = picture.with_name(f"{picture.stem}-{number:02}{picture.suffix}")
        whole.crop((0, top, whole.width, min(top + height, whole.height))).save(piece)
        print(piece)


if __name__ == "__main__":
    sys.exit(main())
