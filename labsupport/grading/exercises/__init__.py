"""The exercises of every lab: each a module with its reference, its inputs and the mistakes people make.

This folder is never visible inside the sandbox.
"""
