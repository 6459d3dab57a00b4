"""pardec calibrate: measure the device card of this machine, by which costs are predicted."""

import argparse
from pathlib import Path

SUMMARY = "measure how fast this machine streams, multiplies and dispatches, for predicted costs"


def add_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("--device", default="cpu", help="cpu, cuda or cuda:N (default: cpu)")
    command.add_argument("--threads", type=int, default=0, help="CPU threads (0: every core)")
    command.add_argument(
        "--out", type=Path, metavar="FILE", help="default: $PARDEC_CARDS, else the user's data folder"
    )
    command.add_argument("--quick", action="store_true", help="tiny sizes: rougher, under a second")


def run(options: argparse.Namespace) -> int:
    import torch

    from harness.cell.cell import checked
    from harness.cost.calibrate import QUICK, Sizes, calibrate
    from harness.machine.cards import user_cards, write_card
    from harness.machine.terminal import progress_bar
    from harness.subject.prepare import check_device

    checked("threads", options.threads, "--threads")
    check_device(options.device, "float32")
    with progress_bar() as bar:
        bar.add_task("calibrating", total=None)
        card = calibrate(torch.device(options.device), options.threads, QUICK if options.quick else Sizes())
    path = options.out or user_cards()
    write_card(card, path)
    print(f"{card.name}: {card.title}")
    print(f"streaming    {card.bandwidth_bytes_per_s / 1e9:,.1f} GB/s")
    launches = ", ".join(f"{s * 1e6:.2f} at {at / 1e6:.2g}" for at, s in card.launch_s.items())
    print(f"launch       {launches} MB read per operation (us)")
    for precision, rates in card.product_flops_per_s.items():
        by_rows = ", ".join(f"{rate / 1e9:,.0f} at {rows}" for rows, rate in rates.items())
        print(f"{precision:<17} {by_rows} rows (GFLOP/s)")
    for precision, sizes in card.kernel_bytes.items():
        by_rows = ", ".join(f"{size / 1e6:.2f} at {rows}" for rows, size in sizes.items())
        print(f"{precision:<17} {by_rows} rows (MB kept for a shape)")
    faster = "by parts" if card.attention == "parts" else "behind a mask"
    print(f"attention    {faster} where rows see different numbers of slots")
    print(f"written to {path}")
    return 0
