"""The inference engine: one process that turns token ids into text for many requests at once.

Four nouns carry it. A `Sequence` is one request's state. The `KVPool` is memory and knows no policy. The
`Scheduler` is pure: it is handed the time, makes a plan, and is told the outcome. A `Runner` is the device
and knows no requests. `worker` puts the four in a process of their own; `client` is the asynchronous handle
to it; `offline` runs the same four in the caller's process.
"""
