"""The examination goes on whatever a check does, and nothing is reported wrong without a remedy."""

from __future__ import annotations

import pytest

from labsupport.errors import LabsupportError
from labsupport.machine.doctor import Check, Finding, examine


def test_a_check_that_breaks_is_a_failure_and_the_next_one_is_still_asked() -> None:
    def breaks() -> Finding:
        raise ZeroDivisionError("on purpose")

    def refuses() -> Finding:
        raise LabsupportError("the file is cut short", remedy="pull it again")

    good = Finding("good", "ok", "as it should be")

    first, second, third = examine([Check("a", breaks), Check("b", refuses), Check("c", lambda: good)])

    assert (first.check, first.state) == ("a", "fail")
    assert "ZeroDivisionError: on purpose" in first.detail
    assert second == Finding("b", "fail", "the file is cut short", "pull it again")
    assert third == good


@pytest.mark.parametrize("state", ["note", "fail"])
def test_a_finding_without_a_remedy_cannot_be_made(state: str) -> None:
    with pytest.raises(ValueError, match="no remedy"):
        Finding("disk", state, "full")  # type: ignore[arg-type]
