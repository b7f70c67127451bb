"""Times of passes beside their floors and targets, as a page of Markdown.

Times are in seconds; what was not measured is None, and the page says so.
"""

from typing import NamedTuple

from gpu_work import PAPER, floor

# At most, on an NVIDIA H200, for the case of the paper with the descriptors on the device.
TARGETS = {
    "forward": 105e-6,
    "VJP, parameters": 150e-6,
    "VJP, descriptors": 235e-6,
    "VJP, both": 285e-6,
    "EM iteration": 150e-6,
}
# How many times faster than array code, at least, in the same case.
TARGET_RATIO = 3
# Of the paper, on four Titan X (2017), in seconds.
PUBLISHED = {"forward": 20e-3, "VJP, parameters": 10.79, "VJP, descriptors": 2.89}


class Times(NamedTuple):
    """Of one pass over one case, in seconds."""

    kernels: float | None = None  # kernels of this package alone, launched again and again
    each: dict | None = None  # each kernel by its name, launched alone
    noise: float | None = None  # by which share two such measurements differ
    call: float | None = None  # the whole call, data on the device
    array: float | None = None  # the whole call without kernels of this package
    tf32: float | None = None  # array code, with tensor cores allowed to round to TF32
    host: float | None = None  # from pageable host memory, and back
    cpu: float | None = None  # on the CPU of the same machine, all cores
    peer: float | None = None  # scikit-learn's GaussianMixture on CuPy, EM only

    def in_seconds(self):
        """Return the times that were measured, by name."""
        times = {n: t for n, t in self._asdict().items() if n not in ("noise", "each")}
        return {n: t for n, t in times.items() if t is not None}


def ratio(slow, fast):
    """Return how many times faster `fast` is than `slow`."""
    return None if slow is None or fast is None else slow / fast


def show(seconds, unit=1e-6, digits=0):
    """Return a time, share or ratio in a unit, or the words that it was not measured."""
    return "not measured" if seconds is None else f"{seconds / unit:.{digits}f}"


def verdict(value, least=None, most=None):
    """Return whether a target is met."""
    if value is None:
        return ""
    met = value >= least if most is None else value <= most
    return "met" if met else "missed"


def table(header, rows):
    """Return lines of Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(line) + " |" for line in lines]


def targets_table(results):
    """Return the table of the targets; `results` maps (case, work) to `Times`."""
    header = ["work", "paper, four Titan X, ms", "target, us", "kernels alone, us", ""]
    header += ["whole call, us", "", "array code / call, at least", "measured", ""]
    rows = []
    for work, most in TARGETS.items():
        times = results.get((PAPER, work), Times())
        faster = ratio(times.array, times.call)
        published = show(PUBLISHED[work], 1e-3) if work in PUBLISHED else ""
        row = [work, published, show(most)]
        for seconds in (times.kernels, times.call):
            row += [show(seconds), verdict(seconds, most=most)]
        row += [f"{TARGET_RATIO}", show(faster, 1, 1), verdict(faster, least=TARGET_RATIO)]
        rows.append(row)
    return table(header, rows)


def cases_table(results, ceilings):
    """Return the table of everything measured."""
    header = ["case", "work", "floor, us", "set by", "kernels alone, us", "noise, %"]
    header += [
        "share of floor, %",
        "whole call, us",
        "array code, us",
        "array / call",
    ]
    header += ["array code in TF32, us", "from host and back, us", "CPU, us", "CPU / from host"]
    rows = []
    for (case, work), t in results.items():
        least, limit = floor(case, work, ceilings)
        row = [str(case), work, show(least), limit or "", show(t.kernels), show(t.noise, 1e-2)]
        row += [show(ratio(least, t.kernels), 1e-2), show(t.call), show(t.array)]
        row += [show(ratio(t.array, t.call), 1, 2), show(t.tf32), show(t.host), show(t.cpu)]
        rows.append([*row, show(ratio(t.cpu, t.host), 1, 1)])
    return table(header, rows)


def peers_table(results):
    """Return the table of EM against scikit-learn on the same device."""
    header = ["case", "EM iteration, us", "scikit-learn on CuPy, us", "times faster"]
    rows = [
        [str(case), show(t.call), show(t.peer), show(ratio(t.peer, t.call), 1, 1)]
        for (case, work), t in results.items()
        if work == "EM iteration"
    ]
    return table(header, rows)


def kernels_table(results):
    """Return the table of every kernel's own time."""
    rows = [
        [str(case), work, f"`{name}`", show(seconds)]
        for (case, work), times in results.items()
        for name, seconds in (times.each or {}).items()
    ]
    return table(["case", "work", "kernel", "us"], rows)


def page(title, about, results, ceilings, notes=()):
    """Return the whole page of results."""
    case = f"{PAPER.n_bags} bags of {PAPER.length} descriptors, D = {PAPER.d}, K = {PAPER.k}"
    lines = [f"# {title}", "", *about, ""]
    lines += ["## Targets", "", f"{case}, float32, on the device; targets for one NVIDIA H200.", ""]
    lines += targets_table(results)
    if any(any(t) for t in results.values()):
        lines += ["", "## All cases", "", *cases_table(results, ceilings)]
        lines += ["", "## Every kernel alone", "", *kernels_table(results)]
        lines += ["", "## EM against scikit-learn", "", *peers_table(results)]
    lines += ["", *(f"- {note}" for note in notes)]
    return "\n".join(lines).rstrip() + "\n"
