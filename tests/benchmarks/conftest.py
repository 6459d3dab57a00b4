"""Prints the ratios of the decode benchmarks after their run."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    rows = [bench for bench in getattr(session, "benchmarks", []) if "ratio_to_floor" in bench.extra_info]
    if not rows:
        return
    terminalreporter.section("decode against its baselines (medians; ratio 1 = the baseline)")
    baselines = ("products", "limit", "uncached", "eager")
    heads = "".join(f" {name:>9}" for name in baselines)
    terminalreporter.write_line(f"{'case':44} {'decode s':>9} {'floor':>7}{heads}")
    for bench in rows:
        info = bench.extra_info
        ratios = [info.get(f"ratio_to_{name}") for name in baselines]
        others = "".join(f" {'' if ratio is None else f'{ratio:.3f}':>9}" for ratio in ratios)
        terminalreporter.write_line(
            f"{bench.name:44} {info['decode_s']:9.3f} {info['ratio_to_floor']:7.2f}{others}"
        )
