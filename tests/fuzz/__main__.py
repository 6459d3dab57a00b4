"""Coverage-guided fuzzing with atheris (extra ``fuzz``): ``python -m tests.fuzz TARGET -runs=N``.

Other flags are libFuzzer's, e.g. ``-max_total_time=60``. Without a target: their names.
"""

import os
import sys
import tempfile
import warnings
from pathlib import Path
from random import Random


def main() -> None:
    import atheris

    with atheris.instrument_imports(include=["harness", "reports", "results", "strategies", "backbones"]):
        from tests.fuzz.mutation import mutated
        from tests.fuzz.targets import TARGETS
    if len(sys.argv) < 2 or sys.argv[1] not in TARGETS:
        print("\n".join(sorted(TARGETS)))
        sys.exit(0 if len(sys.argv) < 2 else 2)
    warnings.simplefilter("ignore")
    chosen = TARGETS[sys.argv[1]]
    folder = Path(tempfile.mkdtemp(prefix=f"pardec-fuzz-{chosen.name}-"))
    for name in ("seeds", "corpus"):
        (folder / name).mkdir()
    seeds = chosen.seeds(folder / "seeds")
    for number, seed in enumerate(seeds):
        (folder / "corpus" / f"{number}").write_bytes(seed)

    def once(data: bytes) -> None:
        chosen.run(data, folder, limited=False)

    def change(data: bytes, most: int, seed: int) -> bytes:
        random = Random(seed)
        if random.random() < 0.5:
            return atheris.Mutate(data, most)
        return mutated(data or random.choice(seeds), random, chosen.words)[:most]

    flags = [
        "-timeout=20",
        "-rss_limit_mb=4096",
        "-max_len=65536",
        f"-artifact_prefix={folder}{os.sep}",
        "-verbosity=0",
    ]
    words = [sys.argv[0], *flags, *sys.argv[2:], "-print_final_stats=1", str(folder / "corpus")]
    print(f"{chosen.name}: {len(seeds)} seeds; findings go to {folder}")
    atheris.Setup(words, once, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
