"""The parts of `benchmarks.gpu`: what a GPU gives, against its own limit and against transformers.

`benchmarks.gpu` is the command. It imports no torch: whatever touches the GPU is a process of its own
(`contender`), so that an error on the device, which nothing in the same process survives, costs only what was
under way; and so that each contender finds the GPU empty.
"""
