"""The datasheet as text, for a terminal and for readers who do not see the picture."""

from __future__ import annotations

from labsupport.machine.sheet import GIB, TIERS, Datasheet

GB = 10**9
DISTURBED = 1.0
"""The spread from which on a measurement says more about the other programs than about the computer."""


def text(sheet: Datasheet) -> str:
    """The whole sheet in lines of at most 100 characters."""
    return "\n".join([*_facts(sheet), "", *_measurements(sheet), "", *_bounds(sheet), "", *_vendors(sheet)])


def facts(sheet: Datasheet) -> dict[str, str]:
    """What was detected, as labels and values."""
    machine = sheet.machine
    limited = " (a container's limit)" if machine.memory_limited_by_container else ""
    shared = ", shared by CPU and GPU" if machine.unified_memory else ""
    gpus = ", ".join(f"{gpu.name}, {gpu.memory_bytes / GIB:.0f} GiB" for gpu in machine.gpus)
    cores = f"{machine.usable_cores} of {machine.logical_cores} logical, {machine.physical_cores} physical"
    return {
        "processor": machine.cpu,
        "cores": f"{cores} may be used" if machine.usable_cores < machine.logical_cores else cores,
        "instructions": ", ".join(machine.instruction_sets) or "none of those that matter are known",
        "memory": f"{machine.memory_bytes / GIB:.1f} GiB{limited}{shared}",
        "GPU": gpus or ("the processor's own" if machine.unified_memory else "none"),
        "free disk": f"{machine.disk_free_bytes / GIB:.0f} GiB",
    }


def _facts(sheet: Datasheet) -> list[str]:
    lines = [f"{label:<14}{value}" for label, value in facts(sheet).items()]
    return [*lines, f"{'tier':<14}{TIERS[sheet.machine.tier]}"]


def _measurements(sheet: Datasheet) -> list[str]:
    lines = [f"{'measured':<28}{'median':>12}{'best':>12}  {'unit':<9}{'spread':>7}"]
    for one in sheet.measurements:
        numbers = f"{one.median:>12.2f}{one.best:>12.2f}  {one.unit:<9}{one.spread:>6.0%}"
        lines.append(f"{one.name:<28}{numbers}  {one.note}".rstrip())
    if any(one.spread > DISTURBED for one in sheet.measurements):
        lines.append(
            "A spread this wide means that other programs were running. Close them and measure again."
        )
    return lines


def _bounds(sheet: Datasheet) -> list[str]:
    context = f"with {sheet.bounds[0].context_tokens:,} tokens of context"
    lines = [f"{'at most, by that bandwidth':<28}{'tokens/s':>12}{'GB needed':>12}  {context}"]
    for one in sheet.bounds:
        numbers = f"{one.tokens_per_second:>12.1f}{one.needed_bytes / GB:>12.1f}"
        lines.append(
            f"{one.model + ' ' + one.quantization:<28}{numbers}  {'fits' if one.fits else 'does not fit'}"
        )
    return lines


def _vendors(sheet: Datasheet) -> list[str]:
    lines = [f"{'other tiers, as printed':<28}{'GB/s':>12}{'GB':>12}"]
    for one in sheet.vendors:
        numbers = f"{one.bandwidth_bytes_per_second / GB:>12.0f}{one.memory_bytes / GB:>12.0f}"
        lines.append(f"{one.name:<28}{numbers}  {one.source}")
    return lines
