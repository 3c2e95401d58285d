"""Another server of OpenAI's protocol, behind our routes, keys, limits, ledger and metrics.

Right means: a client cannot tell it from an engine of our own, except that there is no `/tokenize`; nothing
secret crosses in either direction; and an upstream that fails, in whatever way, becomes an error that says
so in OpenAI's shape.
"""
