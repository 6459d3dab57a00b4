"""Prints the ratios of the decode benchmarks after their run."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    session = getattr(config, "_benchmarksession", None)
    rows = [bench for bench in getattr(session, "benchmarks", []) if "ratio_to_floor" in bench.extra_info]
    if not rows:
        return
    terminalreporter.section("decode against its baselines (medians; ratio 1 = the baseline)")
    terminalreporter.write_line(
        f"{'case':44} {'decode s':>9} {'floor':>7} {'products':>9} {'limit':>7} {'uncached':>9}"
    )
    for bench in rows:
        info = bench.extra_info
        products, uncached = (
            f"{info[key]:.3f}" if key in info else "" for key in ("ratio_to_products", "ratio_to_uncached")
        )
        terminalreporter.write_line(
            f"{bench.name:44} {info['decode_s']:9.3f} {info['ratio_to_floor']:7.2f} {products:>9} "
            f"{info['ratio_to_limit']:7.2f} {uncached:>9}"
        )
