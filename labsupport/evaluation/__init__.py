"""How good are a model's answers? Exact match over any engine, and how much of it may be memory."""
