"""`labsupport grade SUBMISSIONS --out FOLDER`: scores, feedback pages and a CSV of a class's labs."""

from __future__ import annotations

import argparse
from pathlib import Path


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "submissions",
        type=Path,
        nargs="?",
        default=Path("submitted"),
        help="a folder with STUDENT/LAB/NOTEBOOK in it, or one notebook (default: submitted)",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("graded"), help="where to put the report (default: graded)"
    )
    parser.add_argument("--lab", action="append", help="grade this lab only, for instance lab01 (repeatable)")
    parser.add_argument(
        "--seed", type=int, help="draw the inputs from this seed (default: a new one, written in the report)"
    )
    parser.add_argument(
        "--labs", type=Path, default=Path("labs"), help="the course's folder of labs (default: labs)"
    )
    parser.add_argument("--json", action="store_true", help="print the results as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Grade and report. Status 1 if the grader itself failed on a submission, or there is no sandbox."""
    from labsupport.grading.classroom import grade_class

    return grade_class(
        arguments.submissions,
        arguments.out,
        labs_folder=arguments.labs,
        labs=arguments.lab,
        seed=arguments.seed,
        print_json=arguments.json,
    )
