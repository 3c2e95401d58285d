"""What stands in the place of a room that would give a lab's answers away, while that lab is graded."""

raise ImportError("this part of labsupport is closed while the lab is graded: write it yourself")
