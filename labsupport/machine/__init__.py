"""What this computer is and can do: detect it, measure it, check it, and put it on one page.

Right means: a limit set from outside (a container, a CPU mask) counts as the computer's own, a measurement
says how much it scattered, and nothing here imports torch before a check or a measurement needs it.
"""
