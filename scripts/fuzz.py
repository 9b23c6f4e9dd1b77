"""Feeds bytes to everything that reads those of a peer, guided by the code that they reach, until something breaks.

    scripts/fuzz [MINUTES] [--corpus FOLDER]

The targets are in tests/property/fuzz_targets.py. It stops at the first input that raises anything but an error of the
protocol, takes a second of processor time, or makes one connection to a host take over 64 KiB, and writes that input to
./crash-HASH, which ``scripts/fuzz --again FILE`` runs once more. With --corpus, the inputs that reach new code are kept
for the next time.

It needs atheris (Apache-2.0; Linux on x86-64, Python 3.11 to 3.13), which nothing else here does:

    .venv/bin/pip install atheris

Without it there are Hypothesis' inputs: scripts/test --slow tests/property/test_fuzz.py
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
SECOND = 1.0  # of processor time, for one input


def child(figures: Path, words: list[str]) -> None:
    """Run the fuzzer in this process, which it ends by itself. The first byte of an input chooses the target."""
    import atheris

    with atheris.instrument_imports(include=["chat", "transports"], enable_loader_override=False):
        from tests.property.fuzz_targets import LONGEST, Hosts, targets

    tracemalloc.start()
    hosts = Hosts()
    functions = list(targets(hosts).items())
    record: dict[str, list[float]] = {name: [0, 0.0] for name, _ in functions}  # how many, and seconds of the slowest

    def one(data: bytes) -> None:
        name, function = functions[data[0] % len(functions) if data else 0]
        hosts.ready()
        began = time.process_time()  # whatever else the machine does
        function(data[1:])
        took = time.process_time() - began
        assert took < SECOND, f"{name} took {took:.1f} s"
        record[name] = [record[name][0] + 1, max(record[name][1], took)]
        if sum(count for count, _ in record.values()) % 500 == 0:
            figures.write_text(json.dumps(record))

    atheris.Setup([sys.argv[0], f"-max_len={LONGEST}", "-print_final_stats=1", *words], one)
    atheris.Fuzz()


def seeds(folder: Path) -> None:
    from tests.property.fuzz_targets import NAMES, SEEDS

    for target in range(len(NAMES)):
        for number, seed in enumerate(SEEDS):
            (folder / f"{target}-{number}").write_bytes(bytes([target]) + seed)


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/fuzz", description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("minutes", type=float, nargs="?", default=10.0, metavar="MINUTES", help="(10)")
    parser.add_argument("--corpus", type=Path, metavar="FOLDER", help="begin with the inputs there, and add to them")
    parser.add_argument("--again", type=Path, metavar="FILE", help="run one input")
    arguments = parser.parse_args()
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("fuzz: it needs atheris, so run: .venv/bin/pip install atheris", file=sys.stderr)
        print("fuzz: or, without it: scripts/test --slow tests/property/test_fuzz.py", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory(prefix="chat-fuzz-") as scratch:
        first, kept, figures = Path(scratch) / "seeds", arguments.corpus or Path(scratch) / "kept", Path(scratch) / "f"
        for folder in (first, kept):
            folder.mkdir(exist_ok=True)
        seeds(first)
        words = [f"-max_total_time={arguments.minutes * 60:.0f}", str(kept), str(first)]
        command = [
            sys.executable,
            __file__,
            "--child",
            str(figures),
            *([arguments.again] if arguments.again else words),
        ]
        code = subprocess.run(command, check=False, env=os.environ | {"TMPDIR": scratch}).returncode
        if figures.exists():
            found: dict[str, Any] = json.loads(figures.read_text())
            for name, (count, slowest) in found.items():
                print(f"{name:10} {count:>10,} inputs, the slowest {slowest * 1000:.0f} ms")
    return code


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))  # for tests
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3:])
    sys.exit(main())
