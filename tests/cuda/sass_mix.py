"""Print the instruction mix of each loop of each kernel in a cubin, no GPU needed.

    python -m tests.cuda.sass_mix sm_90.cubin [--least 64]

A loop's share of FFMA is the best that loop can reach of the fp32 peak. LDL and STL are spills.
Loops are listed inner first; an outer loop counts one copy of each inner loop. Needs nvdisasm (PyPI
wheel nvidia-cuda-nvdisasm, or the CUDA toolkit).
"""

import argparse
import collections
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path


def find_nvdisasm():
    """Return the path of the disassembler of this environment or machine, or None."""
    wheels = Path(sysconfig.get_paths()["purelib"], "nvidia").glob("*/bin/nvdisasm")
    return next(wheels, shutil.which("nvdisasm"))


def kernels(text):
    """Yield the kernels of a disassembly, ``(name, [(label or None, instruction or None)])``."""
    name, lines = None, []
    for line in text.splitlines():
        if section := re.match(r"\s*\.section\s+\.text\.(\S+?),", line):
            if name:
                yield name, lines
            name, lines = section[1], []
        elif label := re.match(r"(\.L_x_\d+):", line):
            lines.append((label[1], None))
        elif instruction := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?);", line):
            lines.append((None, instruction[1]))
    if name:
        yield name, lines


def loops(lines):
    """Yield the opcode counts of the body of every backward branch."""
    where = {label: i for i, (label, _) in enumerate(lines) if label}
    for i, (_, instruction) in enumerate(lines):
        target = instruction and re.search(r"\bBRA\b.*?(\.L_x_\d+)", instruction)
        if target and where.get(target[1], i) < i:
            body = [text for _, text in lines[where[target[1]] : i + 1] if text]
            unguarded = (re.sub(r"^@!?U?P\w+\s+", "", text) for text in body)
            yield collections.Counter(text.split()[0] for text in unguarded)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cubin")
    parser.add_argument("--least", type=int, default=64, help="leave out shorter loops")
    args = parser.parse_args()
    nvdisasm = find_nvdisasm()
    if nvdisasm is None:
        sys.exit("no nvdisasm found: pip install nvidia-cuda-nvdisasm")
    done = subprocess.run([nvdisasm, "-c", args.cubin], capture_output=True, text=True, check=True)
    for name, lines in kernels(done.stdout):
        print(name)
        for mix in loops(lines):
            total = sum(mix.values())
            share = sum(n for op, n in mix.items() if op.startswith("FFMA")) / total
            if total >= args.least:
                most = " ".join(f"{op} {n}" for op, n in mix.most_common(8))
                print(f"  {total:5d} instructions, FFMA {share:4.0%}: {most}")


if __name__ == "__main__":
    main()
