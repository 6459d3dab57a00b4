"""Which published figures hold: every figure of ``results/published.csv`` against the rows that we measured.

A row is evidence only where it was made as the paper made its figure. Quality needs the authors' weights, the
same steps, guidance, sampling and options, and the protocol that the papers share; speed and memory need the
same GPU, batch, data type and steps, so rows of another device never count; parameters are counted anywhere.
What a paper doesn't state can't be the same.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from reports.published import published_lines
from reports.tables import with_interval
from results.schema import RANDOM_WEIGHTS, Row

Verdict = Literal["reproduced", "contradicted", "not comparable", "untested"]
VERDICTS: tuple[Verdict, ...] = ("reproduced", "contradicted", "not comparable", "untested")
N = 50_000
"""Images behind every published quality figure (evaluation by the ADM protocol)."""
PROTOCOL = "ADM"
PROTOCOLS = {"Halton-MaskGIT README": "clean-fid, against the training images"}
"""Sources whose FID is of another protocol."""
EXTRACTORS = ("inception", "inception-v3-compat")
"""Feature networks of that protocol, as a row's protocol names them."""
REFERENCES = {"256": "VIRTUAL_imagenet256_labeled", "512": "VIRTUAL_imagenet512"}
"""The ADM reference batch at each resolution."""
NOT_STATED = "not stated"

Reading = tuple[float, float | None, float | None]
"""value, low, high"""
Keys = Mapping[str, str]


@dataclass(frozen=True)
class Figure:
    """A column of published figures, and how rows are read against it."""

    name: str
    unit: str
    reading: Callable[[Row], Reading | None]
    expected: Callable[[Mapping[str, str]], Keys]
    """What the paper's line says of each key that matters."""
    found: Callable[[Row], Keys]
    """The same of a row."""
    round_numbers: bool = False
    """Whether papers print it in round numbers."""
    metrics: tuple[str, ...] = ()
    """Names, without their N, of the quality metrics that it is."""


@dataclass(frozen=True)
class Claim:
    """One figure of one line, and what became of it."""

    line: Mapping[str, str]
    figure: str
    printed: str
    unit: str
    verdict: Verdict
    evidence: str
    keys: tuple[str, ...] = ()
    """What differs, of a verdict "not comparable"."""
    cell: str | None = None
    """The row that speaks."""


def claims(rows: Sequence[Row]) -> list[Claim]:
    """A verdict for every published figure."""
    # What follows from a declared acceptance is evidence of nothing.
    sound = [row for row in rows if row.status == "ok" and row.tier != "anchor" and row.acceptance is None]
    return [
        _judged(line, column, figure, sound)
        for line in published_lines()
        for column, figure in FIGURES.items()
        if line[column]
    ]


def counts(found: Iterable[Claim]) -> dict[Verdict, int]:
    """Figures of every verdict."""
    seen = Counter(claim.verdict for claim in found)
    return {verdict: seen[verdict] for verdict in VERDICTS}


def _judged(line: Mapping[str, str], column: str, figure: Figure, rows: Sequence[Row]) -> Claim:
    printed = line[column]

    def claim(verdict: Verdict, evidence: str, keys: tuple[str, ...] = (), row: Row | None = None) -> Claim:
        cell = None if row is None else row.cell
        return Claim(line, figure.name, printed, figure.unit, verdict, evidence, keys, cell)

    if not line["network"]:
        return claim("untested", "no network of ours")
    ours = line["strategy"], line["network"]
    same = [row for row in rows if (row.strategy, row.network) == ours]
    measured = [(row, reading) for row in same if (reading := figure.reading(row)) is not None]
    if not measured:
        return claim("untested", f"no row of {line['strategy']} on {line['network']} has it")
    expected = figure.expected(line)
    differing = [(_differences(expected, figure.found(row)), row, reading) for row, reading in measured]
    comparable = [(row, reading) for keys, row, reading in differing if not keys]
    if not comparable:
        keys, row, _ = min(differing, key=lambda one: len(one[0]))
        said = figure.found(row)
        text = "; ".join(f"{key} {said[key]}, published {expected[key]}" for key in keys)
        return claim("not comparable", f"nearest row {row.cell}: {text}", keys, row)
    row, reading = min(comparable, key=lambda one: _width(one[1]))
    seen = f"row {row.cell}: {_shown(figure, reading)}"
    if len(comparable) > 1:
        seen += f" (the narrowest of {len(comparable)} rows)"
    value, low, high = reading
    half = rounding(printed, figure.round_numbers)
    bounded = low is not None and high is not None
    lower, upper = (low, high) if low is not None and high is not None else (value, value)
    if lower - half <= float(printed) <= upper + half:
        return claim("reproduced", seen, row=row)
    if not bounded:
        return claim("untested", f"{seen}: measured once, so nothing bounds it", row=row)
    return claim("contradicted", seen, row=row)


def rounding(printed: str, round_numbers: bool = False) -> float:
    """Half a unit of the last digit printed; of ``round_numbers`` closing zeros are no digits (1.3B: 1300).

    A lone zero after the point counts as none, since a table's 255.0 may have been a paper's 255.
    """
    whole, _, decimals = printed.partition(".")
    if decimals not in ("", "0"):
        return 0.5 * 10.0 ** -len(decimals)
    return 0.5 * 10.0 ** (len(whole) - len(whole.rstrip("0")) if round_numbers else 0)


def _differences(expected: Keys, found: Keys) -> tuple[str, ...]:
    return tuple(key for key, value in expected.items() if found[key] != value)


def _width(reading: Reading) -> float:
    _, low, high = reading
    return float("inf") if low is None or high is None else high - low


def _shown(figure: Figure, reading: Reading) -> str:
    value, low, high = reading
    text = f"{value:,.2f}" if low == high == value else with_interval(*reading)
    return f"{text} {figure.unit}".strip()


# What has to be the same ---------------------------------------------------------------------------------


def _quality_expected(line: Mapping[str, str]) -> Keys:
    scale = line["scale"]
    return {
        "weights": line["weights"],
        "steps": line["steps"] or NOT_STATED,
        "guidance": _number(scale) if scale not in ("", "none") else scale or NOT_STATED,
        "schedule": line["schedule"] or ("none" if scale == "none" else NOT_STATED),
        "temperature": _number(line["temperature"]) if line["temperature"] else NOT_STATED,
        "filters": "none",
        "options": line["options"] or "defaults",
        "n": str(N),
        "reference": REFERENCES.get(line["resolution"], NOT_STATED),
        "protocol": PROTOCOLS.get(line["source"], PROTOCOL),
    }


def _quality_found(row: Row) -> Keys:
    guided = row.guidance is not None
    filtered = bool(row.top_k) or (row.top_p is not None and row.top_p < 1)
    extractor = row.protocol["extractor"] if row.protocol else "none"
    return {
        "weights": "random" if row.checkpoint in (None, RANDOM_WEIGHTS) else "published",
        "steps": str(row.steps),
        "guidance": f"{row.guidance:g}" if guided else "none",
        "schedule": str(row.guidance_schedule) if guided else "none",
        "temperature": "unknown" if row.temperature is None else f"{row.temperature:g}",
        "filters": f"top-k {row.top_k}, top-p {row.top_p}" if filtered else "none",
        "options": "; ".join(f"{key}={value}" for key, value in sorted(row.options.items())) or "defaults",
        "n": str(row.images),
        "reference": row.reference["name"] if row.reference else "none",
        "protocol": PROTOCOL if extractor in EXTRACTORS else extractor,
    }


def _speed_expected(line: Mapping[str, str], batch: str) -> Keys:
    detokenizer = {"detokenizer": line["detokenizer"]} if line["detokenizer"] else {}
    return {
        "device": line["gpu"] or NOT_STATED,
        "batch": batch or NOT_STATED,
        "dtype": line["dtype"] or NOT_STATED,
        "steps": line["steps"] or NOT_STATED,
        "guidance": "none" if line["scale"] == "none" else "on",
        **detokenizer,
    }


def _speed_found(row: Row, batch: str) -> Keys:
    environment = row.environment or {}
    gpu = environment.get("gpu") if row.device != "cpu" else None
    name = next((known for known in GPUS if known in str(gpu)), str(gpu or environment.get("host_cpu")))
    return {
        "device": name,
        "batch": batch,
        "dtype": row.dtype,
        "steps": str(row.steps),
        "guidance": "none" if row.guidance is None else "on",
        "detokenizer": "yes" if (row.phases_s or {}).get("detokenize") else "no",
    }


GPUS = ("A100", "A800", "H100", "H200", "H800", "L20")
"""As the papers call them; a row's environment has the long name."""


def _number(text: str) -> str:
    return f"{float(text):g}"


# What is read ----------------------------------------------------------------------------------------------


def _metric(*names: str) -> Callable[[Row], Reading | None]:
    def read(row: Row) -> Reading | None:
        for name, metric in (row.quality or {}).items():
            if name.partition("@")[0] in names and metric["value"] is not None:
                return metric["value"], metric["low"], metric["high"]
        return None

    return read


def _quality(name: str, *names: str) -> Figure:
    return Figure(name, "", _metric(*names), _quality_expected, _quality_found, metrics=names)


def _timed(value: float | None, bounds: Sequence[float] | None) -> Reading | None:
    return None if value is None else (value, *(bounds or (None, None)))


def _throughput(row: Row) -> Reading | None:
    return _timed(row.throughput_images_per_s, row.throughput_interval)


def _latency(row: Row) -> Reading | None:
    return _timed(row.latency_s, row.latency_interval_s)


def _memory(row: Row) -> Reading | None:
    if row.peak_bytes is None or row.weight_bytes is None:
        return None
    return (row.peak_bytes + row.weight_bytes) / 1e9, None, None


def _parameters(row: Row) -> Reading | None:
    return None if row.parameters is None else (row.parameters / 1e6,) * 3


def _at_batch(row: Row) -> Keys:
    return _speed_found(row, str(row.batch))


FIGURES: dict[str, Figure] = {
    "params_m": Figure("parameters", "M", _parameters, lambda line: {}, lambda row: {}, round_numbers=True),
    "fid": _quality("FID", "fid", "fid_inception", "fd_inception"),
    "sfid": _quality("sFID", "sfid", "sfd_inception"),
    "inception_score": _quality("IS", "is", "is_inception"),
    "precision": _quality("precision", "precision"),
    "recall": _quality("recall", "recall"),
    "throughput_img_s": Figure(
        "throughput",
        "images/s",
        _throughput,
        lambda line: _speed_expected(line, line["batch"]),
        _at_batch,
    ),
    "latency_s": Figure(
        "latency", "s", _latency, lambda line: _speed_expected(line, "1"), lambda row: _speed_found(row, "1")
    ),
    "memory_gb": Figure(
        "memory", "GB", _memory, lambda line: _speed_expected(line, line["batch"]), _at_batch
    ),
}
"""Column of ``results/published.csv`` -> what it holds. A row's latency is at batch 1 whatever its batch."""
