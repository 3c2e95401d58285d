"""Devices that execute plans: `llama` on a model file, `modeled` on nothing but arithmetic."""
