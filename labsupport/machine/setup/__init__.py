"""From a clone to a working course: what `make setup` runs before anything is installed.

Right means: it needs nothing but Python's standard library; it says what is missing, and how to mend it,
before it downloads a byte; it never fetches a CUDA build for a computer without an NVIDIA GPU; and it may be
stopped at any moment and started again, when it goes on from the last step that was finished.
"""
