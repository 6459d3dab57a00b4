"""Rows and artifacts as a sweep would leave them, without a network: shapes and magnitudes are realistic."""

import dataclasses
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console

from reports.compare import Comparison, print_comparison
from results.schema import Row, reasons
from results.store import ResultStore

GRID = 8
CELLS = [
    ("raster", "Raster", 64, {}, 9.8, 61.0),
    ("rar", "RAR", 64, {}, 11.5, 55.0),
    ("par", "PAR", 19, {}, 12.9, 166.0),
    ("lpd", "LPD", 20, {}, 11.8, 171.0),
    ("lpd", "LPD", 10, {}, 13.1, 324.0),
    ("lpd", "LPD random order", 10, {"order": "random"}, 24.4, 331.0),
    ("arpg", "ARPG", 32, {}, 15.6, 149.0),
    ("arpg", "ARPG", 16, {}, 17.2, 288.0),
    ("arpg", "ARPG", 8, {}, 33.0, 510.0),
]
"""(strategy, label, steps, options, Fréchet distance, images/s)"""

ENVIRONMENT = {
    "host_cpu": "Intel Xeon 2.60 GHz",
    "cores": 2,
    "gpu": None,
    "torch": "2.9.0",
    "numpy": "2.1.0",
    "python": "3.11.9",
    "platform": "Linux",
    "git_commit": "0123abcd",
    "git_dirty": False,
    "pardec": "0.1.0",
}


def metric(value: float, half: float, n: int = 1000) -> dict[str, Any]:
    return {"value": value, "low": value - half, "high": value + half, "n": n, "reference": "fashion-train"}


def quality(distance: float, n: int = 1000) -> dict[str, Any]:
    return {
        f"fd_fashion@{n}": metric(distance, 0.06 * distance, n),
        f"kid_fashion@{n}": metric(distance / 900, 0.0012, n),
        f"precision@{n}": metric(0.95 - distance / 200, 0.017, n),
        f"recall@{n}": metric(0.9 - distance / 90, 0.021, n),
        f"accuracy@{n}": metric(1.01 - distance / 250, 0.009, n),
    }


def base_row(index: int, **changes: Any) -> Row:
    values: dict[str, Any] = {
        "cell": f"{index:016x}",
        "status": "ok",
        "tier": "controlled",
        "strategy": "raster",
        "label": "Raster",
        "network": "zoo/raster",
        "checkpoint": "ab" * 32,
        "tokenizer": "zoo/fsq",
        "batch": 64,
        "images": 1000,
        "dtype": "float32",
        "device": "cpu",
        "seed": 0,
        "threads": 2,
        "started_at": f"2026-01-01T00:{index % 60:02d}:00+00:00",
        "wall_s": 12.5,
        "attempts": [
            {"started_at": "2026-01-01T00:00:00+00:00", "wall_s": 12.5, "status": "ok", "reason": None}
        ],
        "reference": {"name": "fashion-train", "sha256": "cd" * 32, "n": 4000},
        "protocol": {
            "colour": "round",
            "labels": "i % 10",
            "extractor": "zoo/features",
            "extractor_sha256": "ef" * 32,
        },
        "environment": ENVIRONMENT,
    } | changes
    blank = {"unmeasured": _reasons(values)} if "unmeasured" not in values else {}
    return Row(**values, **blank)


def _reasons(values: dict[str, Any]) -> dict[str, str]:
    from results.schema import reasons

    return reasons(values, "not measured in this test")


def cell_row(
    index: int, strategy: str, label: str, steps: int, options: dict, distance: float, rate: float
) -> Row:
    rng = np.random.default_rng(index)
    samples = sorted(float(rate * (1 + 0.02 * z)) for z in rng.standard_normal(9))
    by_batch = {str(b): rate * b / (b + 12) * 76 / 64 for b in (1, 4, 16, 64, 128)}
    peak = {str(b): (2.1 + 0.11 * b * (1 + 0.2 * (index % 4))) * 1e6 for b in (1, 4, 16, 64, 128)}
    return base_row(
        index,
        strategy=strategy,
        label=label,
        options=options,
        network=f"zoo/{strategy}",
        parameters=1_262_720 - (62_000 if strategy == "arpg" else 0),
        steps=steps,
        forwards=steps,
        tokens_processed=64 + steps,
        flops_per_image=1.7e8,
        guidance=2.0,
        guidance_schedule="constant",
        temperature=1.0,
        throughput_images_per_s=samples[4],
        throughput_interval=[samples[1], samples[7]],
        throughput_repeats=9,
        throughput_samples=samples,
        throughput_best_images_per_s=by_batch["128"],
        throughput_best_batch=128,
        throughput_by_batch=by_batch,
        peak_bytes_by_batch=peak,
        latency_s=2.5 / rate,
        latency_interval_s=[2.4 / rate, 2.7 / rate],
        latency_samples_s=[2.4 / rate, 2.5 / rate, 2.7 / rate],
        phases_s={
            "plan": 0.001,
            "prefill": 0.01,
            "decode": 60 / rate,
            "detokenize": 0.05,
            "total": 64 / rate,
        },
        weight_bytes=5_050_880,
        cache_bytes=6_389_760,
        peak_bytes=round(peak["64"]),
        quality=quality(distance),
        lossiness_bits=lost(strategy, steps),
    )


def lost(strategy: str, steps: int) -> dict[str, Any]:
    value = 0.0 if strategy in ("raster", "rar") else 64 / steps
    return {"value": value, "low": 0.9 * value, "high": 1.1 * value, "n": 20}


def anchor_rows() -> list[Row]:
    rows = [
        base_row(
            900, strategy="real", label="Real images", tier="anchor", network="none", quality=quality(1.9)
        ),
        base_row(
            901,
            strategy="reconstruction",
            label="Reconstructions",
            tier="anchor",
            network="none",
            quality=quality(8.9),
        ),
    ]
    return [dataclasses.replace(row, checkpoint=None) for row in rows]


def failed_row(index: int = 800) -> Row:
    reason = "CPU out of memory: tried to allocate 3.2 GB <at step 4> | see log"
    row = base_row(index, strategy="arpg", label="ARPG", steps=4, status="oom", reason=reason, reference=None)
    return dataclasses.replace(row, unmeasured=reasons(dataclasses.asdict(row), reason))


def printed(comparison: Comparison, width: int = 300) -> str:
    """What a terminal of this width shows of a comparison."""
    stream = io.StringIO()
    print_comparison(comparison, Console(file=stream, width=width))
    return stream.getvalue()


def sweep_rows() -> list[Row]:
    """Five strategies, one variant, both anchors and a failed cell."""
    rows = [*anchor_rows(), *(cell_row(i, *cell) for i, cell in enumerate(CELLS))]
    return [*(dataclasses.replace(row, quality_replicates=replicates(row)) for row in rows), failed_row()]


def replicates(row: Row) -> dict[str, list[float]]:
    """Every metric with one of 20 groups of images left out."""
    rng = np.random.default_rng(int(row.cell, 16) % 1000)
    return {
        name: (metric["value"] + 0.001 * rng.standard_normal(20)).tolist()
        for name, metric in (row.quality or {}).items()
    }


def write_sweep(folder: Path) -> Path:
    """A results folder of ``sweep_rows`` with artifacts for every cell that decodes."""
    store = ResultStore(folder)
    for row in sweep_rows():
        if row.status == "ok":
            path = store.artifact(row.cell)
            np.savez_compressed(path, **arrays(row))
            kinds = ("trace", "samples", "lossiness")
            row = dataclasses.replace(row, artifacts=dict.fromkeys(kinds, store.relative(path)))
        store.append(row)
    return folder


def arrays(row: Row) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(int(row.cell, 16) % 1000)
    classes = np.arange(20) % 10
    samples = np.stack([digit(int(c), rng) for c in classes])
    if row.tier == "anchor":
        return {"samples": samples, "classes": classes}
    steps = row.steps or 1
    order = order_map(row, steps, rng)
    blocks = np.kron(np.round(order), np.ones((4, 4)))[..., None]
    film = np.stack([np.where(blocks <= k, samples[3], 127).astype(np.uint8) for k in range(steps)])
    mean = lost(row.strategy, steps)["value"] / steps
    bits = (mean + 0.1 * mean * rng.standard_normal((20, steps))).astype(np.float32)
    return {
        "step_of_position": order,
        "film": film,
        "samples": samples,
        "classes": classes,
        "lossiness_bits": bits,
    }


def order_map(row: Row, steps: int, rng: np.random.Generator) -> np.ndarray:
    raster = np.arange(GRID * GRID)
    if row.strategy in ("raster", "rar"):
        return raster.reshape(GRID, GRID).astype(np.int16)
    if row.strategy == "par":
        inside = np.arange(16).reshape(4, 4)
        return np.tile(np.where(inside == 0, 0, inside + 3), (2, 2)).astype(np.int16)
    if row.strategy == "arpg":
        draws = [(rng.permutation(raster) * steps) // 64 for _ in range(20)]
        return np.mean(draws, axis=0).reshape(GRID, GRID).astype(np.float32)
    return ((rng.permutation(raster) * steps) // 64).reshape(GRID, GRID).astype(np.int16)


def digit(value: int, rng: np.random.Generator) -> np.ndarray:
    """[32, 32, 3] uint8: a white digit on black, a little moved and blurred by noise."""
    image = Image.new("L", (32, 32))
    font = ImageFont.load_default(size=26)
    x, y = rng.integers(6, 11), rng.integers(-1, 4)
    ImageDraw.Draw(image).text((int(x), int(y)), str(value), fill=255, font=font)
    turned = np.asarray(image.rotate(float(rng.normal(0, 8)), resample=Image.Resampling.BILINEAR))
    noisy = np.clip(turned + rng.normal(0, 12, turned.shape), 0, 255).astype(np.uint8)
    return np.repeat(noisy[..., None], 3, axis=-1)


N_PUBLISHED = 50_000
A800 = {"gpu": "NVIDIA A800-SXM4-80GB", "host_cpu": "AMD EPYC"}


def quality_row(**changes: Any) -> Row:
    """LlamaGen-B as its paper ran it: 256 steps, guidance 2.0, 50,000 images, ADM; FID 5.464, IS 193.613."""
    quality = {
        f"fid@{N_PUBLISHED}": metric(5.47, 0.05, N_PUBLISHED),
        f"is@{N_PUBLISHED}": metric(193.0, 2.0, N_PUBLISHED),
        f"precision@{N_PUBLISHED}": metric(0.84, 0.003, N_PUBLISHED),
        f"recall@{N_PUBLISHED}": metric(0.46, 0.004, N_PUBLISHED),
    }
    return base_row(
        1,
        **{
            "tier": "published",
            "network": "llamagen-b-256",
            "parameters": 110_888_448,
            "steps": 256,
            "guidance": 2.0,
            "guidance_schedule": "constant",
            "temperature": 1.0,
            "top_k": 0,
            "top_p": 1.0,
            "images": N_PUBLISHED,
            "quality": quality,
            "reference": {"name": "VIRTUAL_imagenet256_labeled", "sha256": "ab" * 32, "n": 10_000},
            "protocol": {
                "colour": "truncate",
                "labels": "i % 1000",
                "extractor": "inception",
                "extractor_sha256": "cd" * 32,
            },
        }
        | changes,
    )


def speed_row(**changes: Any) -> Row:
    """ARPG-L in 32 steps as its paper timed it: 130.14 images/s, 2.78 GB on an A800 at batch 64."""
    return base_row(
        2,
        **{
            "tier": "published",
            "strategy": "arpg",
            "network": "arpg-l",
            "checkpoint": "random",
            "parameters": 319_845_376,
            "steps": 32,
            "guidance": 5.4,
            "guidance_schedule": "linear",
            "device": "cuda",
            "environment": A800,
            "dtype": "bfloat16",
            "batch": 64,
            "throughput_images_per_s": 131.0,
            "throughput_interval": [129.0, 133.0],
            "weight_bytes": 640_000_000,
            "peak_bytes": 2_140_000_000,
        }
        | changes,
    )
