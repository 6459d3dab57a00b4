"""Verdicts on published figures: each of the four, and every key that turns one into another."""

import csv
import dataclasses
import io

import pytest
from synthetic_rows import A800, metric, quality_row, speed_row

from harness.cli import main
from reports.claim_tables import to_csv, to_markdown
from reports.claims import FIGURES, N, claims, counts, rounding
from reports.published import published_lines
from results.store import ResultStore
from strategies.decoding.presets import preset_info, preset_names
from strategies.decoding.registry import get

LLAMAGEN = "LlamaGen paper tables 6 8-10"


def judged(rows, figure, source=LLAMAGEN, model="LlamaGen-B", steps="256", guidance="cfg 2.0"):
    """The claim about one figure of one line."""
    found = [
        claim
        for claim in claims(rows)
        if claim.figure == figure
        and (claim.line["model"], claim.line["steps"], claim.line["source"]) == (model, steps, source)
        and claim.line["guidance"] == guidance
    ]
    assert len(found) == 1
    return found[0]


def arpg(rows, figure):
    return judged(rows, figure, "ARPG paper table 2", "ARPG-L", "32", "")


# Verdicts --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("figure", ["FID", "IS", "precision", "recall", "parameters"])
def test_a_figure_inside_the_interval_is_reproduced(figure):
    claim = judged([quality_row()], figure)
    assert claim.verdict == "reproduced", claim
    assert claim.cell == quality_row().cell
    assert claim.cell in claim.evidence


def test_a_declared_acceptance_is_evidence_of_nothing():
    assert judged([quality_row(acceptance=0.7, steps_bound=256)], "FID").verdict == "untested"


def test_a_figure_outside_is_contradicted():
    row = quality_row(quality={f"fid@{N}": metric(5.9, 0.1, N)})
    claim = judged([row], "FID")
    assert claim.verdict == "contradicted"
    assert "5.900 ± 0.100" in claim.evidence
    assert judged([row], "IS").verdict == "untested"


def test_rates_and_distances_stand_with_every_digit_that_was_printed():
    for line in published_lines():
        for column in ("precision", "recall"):
            assert len(line[column].partition(".")[2]) != 1, line
    (xxl,) = [line for line in published_lines() if line["network"] == "lpd-xxl-256"]
    assert xxl["fid"] == "2.00"


def test_a_figure_is_as_exact_as_it_is_printed():
    """5.464 lies 0.001 below this interval; the NAR paper's 5.46 of the same result would reach into it."""
    row = quality_row(quality={f"fid@{N}": metric(5.5651, 0.1, N)})
    assert judged([row], "FID").verdict == "contradicted"
    row = quality_row(quality={f"fid@{N}": metric(5.5644, 0.1, N)})
    assert judged([row], "FID").verdict == "reproduced"


@pytest.mark.parametrize(
    ("printed", "round_numbers", "half"),
    [
        ("5.464", False, 0.0005),
        ("193.6", False, 0.05),
        ("248", False, 0.5),
        ("340", False, 0.5),
        ("255.0", False, 0.5),
        ("2.00", False, 0.005),
        ("2.40", False, 0.005),
        ("1300", True, 50.0),
        ("343", True, 0.5),
    ],
)
def test_rounding(printed, round_numbers, half):
    assert rounding(printed, round_numbers) == pytest.approx(half)


DIFFERENT = {
    "weights": {"checkpoint": "random"},
    "steps": {"steps": 255},
    "guidance": {"guidance": 1.75},
    "schedule": {"guidance_schedule": "linear"},
    "temperature": {"temperature": 0.9},
    "filters": {"top_k": 2000},
    "options": {"options": {"order": "random"}},
    "n": {"images": 10_000},
    "reference": {"reference": {"name": "VIRTUAL_imagenet512", "sha256": "ab" * 32, "n": 10_000}},
    "protocol": {
        "protocol": {"colour": "c", "labels": "l", "extractor": "clean-fid", "extractor_sha256": "cd" * 32}
    },
}


@pytest.mark.parametrize("key", DIFFERENT)
def test_one_other_key_makes_quality_incomparable(key):
    claim = judged([quality_row(**DIFFERENT[key])], "FID")
    assert claim.verdict == "not comparable"
    assert claim.keys == (key,)
    assert f"{key} " in claim.evidence
    assert "published " in claim.evidence


def test_another_decoder_on_the_same_network_says_nothing_of_its_paper():
    claim = judged([quality_row(strategy="zipar")], "FID")
    assert claim.verdict == "untested"
    assert claim.evidence == "no row of raster on llamagen-b-256 has it"


def test_every_quality_key_is_covered_by_the_test_above():
    line = judged([quality_row()], "FID").line
    assert set(FIGURES["fid"].expected(line)) == set(DIFFERENT)


def test_unguided_figures_need_unguided_rows():
    row = quality_row(guidance=None, guidance_schedule=None, quality={f"fid@{N}": metric(26.2, 0.3, N)})
    assert judged([row], "FID", guidance="none").verdict == "reproduced"
    assert judged([row], "FID").keys == ("guidance", "schedule")
    assert judged([quality_row()], "FID", guidance="none").keys == ("guidance", "schedule")


def test_speed_and_memory_of_the_same_gpu_are_evidence():
    assert arpg([speed_row()], "throughput").verdict == "reproduced"
    assert arpg([speed_row()], "memory").verdict == "reproduced"
    slow = speed_row(throughput_images_per_s=60.0, throughput_interval=[58.0, 62.0])
    assert arpg([slow], "throughput").verdict == "contradicted"


SLOWED = {
    "device": {"environment": A800 | {"gpu": "NVIDIA A100-SXM4-80GB"}},
    "batch": {"batch": 128},
    "dtype": {"dtype": "float32"},
    "steps": {"steps": 64},
    "guidance": {"guidance": None, "guidance_schedule": None},
    "detokenizer": {"phases_s": {"detokenize": 0.1}},
}


@pytest.mark.parametrize("key", SLOWED)
@pytest.mark.parametrize("figure", ["throughput", "memory"])
def test_one_other_key_makes_speed_incomparable(figure, key):
    claim = arpg([speed_row(**SLOWED[key])], figure)
    assert (claim.verdict, claim.keys) == ("not comparable", (key,))


def test_every_speed_key_is_covered_by_the_test_above():
    line = arpg([speed_row()], "throughput").line
    assert set(FIGURES["throughput_img_s"].expected(line)) == set(SLOWED)


def test_a_cpu_never_speaks_to_speed_but_counts_parameters():
    row = speed_row(device="cpu", environment={"gpu": None, "host_cpu": "AMD EPYC"})
    claim = arpg([row], "throughput")
    assert claim.keys == ("device",)
    assert "AMD EPYC, published A800" in claim.evidence
    assert arpg([row], "parameters").verdict == "reproduced"


def test_a_gpu_in_the_machine_is_not_the_device_of_a_cpu_row():
    assert arpg([speed_row(device="cpu")], "throughput").keys == ("device",)


def test_a_single_measurement_contradicts_nothing():
    assert arpg([speed_row(peak_bytes=9_000_000_000)], "memory").verdict == "untested"
    assert "nothing bounds it" in arpg([speed_row(peak_bytes=9_000_000_000)], "memory").evidence
    assert arpg([speed_row(throughput_interval=None)], "throughput").verdict == "untested"


def test_parameters_are_exact():
    assert judged([quality_row(parameters=111_600_000)], "parameters").verdict == "contradicted"


def test_latency_is_at_batch_one_whatever_the_batch_of_the_row():
    changes = {"strategy": "lpd", "network": "lpd-l-256", "steps": 20, "guidance": 4.8}
    timed = {"latency_s": 0.281, "latency_interval_s": [0.275, 0.29]}
    row = speed_row(**changes, **timed, environment=A800 | {"gpu": "NVIDIA A100 80GB PCIe"}, batch=7)
    source = next(one["source"] for one in published_lines() if one["model"] == "LPD-L")
    assert judged([row], "latency", source, "LPD-L", "20", "").verdict == "reproduced"


@pytest.mark.parametrize(
    "row",
    [
        quality_row(tier="anchor"),
        quality_row(status="invalid", reason="weights are NaN"),
        quality_row(network="llamagen-l-256"),
        quality_row(quality=None),
    ],
)
def test_rows_that_say_nothing_leave_a_figure_untested(row):
    assert judged([row], "FID").verdict == "untested"


def test_what_a_paper_does_not_state_is_not_the_same():
    """The NAR paper repeats LlamaGen's FID without its guidance, and times it without its data type."""
    lines = {"source": "NAR paper table 1", "guidance": ""}
    assert judged([quality_row()], "FID", **lines).keys == ("guidance", "schedule", "temperature")
    fast = speed_row(
        strategy="raster", network="llamagen-b-256", steps=256, environment={"gpu": "NVIDIA A100"}
    )
    assert judged([fast], "throughput", **lines).keys == ("batch", "dtype")


def test_weights_that_were_not_published_cannot_be_reproduced():
    row = quality_row(network="llamagen-xl-256", guidance=1.75, quality={f"fid@{N}": metric(3.39, 0.1, N)})
    claim = judged([row], "FID", model="LlamaGen-XL (50 epochs)", guidance="cfg 1.75")
    assert claim.keys == ("weights",)


def test_the_narrowest_of_several_rows_speaks_and_the_nearest_of_others():
    wide = quality_row(cell="a" * 16, quality={f"fid@{N}": metric(5.3, 0.5, N)})
    narrow = quality_row(cell="b" * 16, quality={f"fid@{N}": metric(5.3, 0.05, N)})
    claim = judged([wide, narrow], "FID")
    assert (claim.verdict, claim.cell) == ("contradicted", "b" * 16)
    assert "of 2 rows" in claim.evidence
    far = quality_row(cell="c" * 16, steps=9, images=100)
    near = quality_row(cell="d" * 16, images=100)
    claim = judged([far, near], "FID")
    assert (claim.keys, claim.cell) == (("n",), "d" * 16)


# The file, and what is written -----------------------------------------------------------------------------


def test_without_rows_every_figure_is_untested():
    found = claims([])
    assert counts(found) == {"reproduced": 0, "contradicted": 0, "not comparable": 0, "untested": len(found)}
    assert len(found) == sum(bool(line[column]) for line in published_lines() for column in FIGURES)


def test_the_file_names_our_networks_as_we_do():
    for line in published_lines():
        if not line["network"]:
            continue
        assert line["network"] in preset_names()
        info = preset_info(line["network"])
        assert line["model"].startswith(info.title.partition(",")[0])
        assert line["strategy"] == info.strategy or get(line["strategy"]).base == info.strategy
        assert line["weights"] in ("published", "not published")
        assert info.file or info.role_files or line["weights"] == "not published"
        if line["steps"]:
            assert int(line["steps"]) in {run.steps for run in info.runs}
        if line["scale"] not in ("", "none"):
            assert line["schedule"] in ("constant", "linear", "power-cosine")


def test_the_scale_is_the_one_that_the_paper_prints():
    stated = [line for line in published_lines() if line["network"] and line["guidance"]]
    assert len(stated) > 25
    for line in stated:
        words = line["guidance"].replace("cfg", "").replace(",", " ").split()
        assert line["scale"] == words[0] or float(line["scale"]) == float(words[0])


def test_the_command_prints_and_writes_them(tmp_path, capsys):
    store = ResultStore(tmp_path / "rows")
    for row in (quality_row(), speed_row(device="cpu", environment={"host_cpu": "AMD EPYC"})):
        store.append(dataclasses.replace(row))
    out = tmp_path / "out"
    assert main(["claims", "--results", str(tmp_path / "rows"), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert "not comparable because device" in printed
    assert "reproduced" in printed
    found = claims([quality_row(), speed_row(device="cpu", environment={"host_cpu": "AMD EPYC"})])
    lines = list(csv.DictReader(io.StringIO((out / "claims.csv").read_text())))
    assert [line["verdict"] for line in lines] == [claim.verdict for claim in found]
    assert (out / "claims.csv").read_text() == to_csv(found)
    assert (out / "claims.md").read_text() == to_markdown(found)
    assert (out / "claims.md").read_text().count("\n| ") == len(found) + 1


def test_no_results_at_all(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["claims"]) == 0
    assert "0 reproduced, 0 contradicted, 0 not comparable" in capsys.readouterr().out
    assert main(["claims", "--results", "nowhere"]) == 2


def test_a_source_of_another_protocol_is_not_judged_by_ours():
    row = quality_row(
        strategy="halton",
        network="maskgit-s-256",
        steps=32,
        guidance=2.0,
        quality={f"fid@{N}": metric(6.4, 0.1, N)},
    )
    line = {"source": "Halton-MaskGIT README", "model": "H-MaskGIT-S", "guidance": "cfg 2.0 (w 1.0)"}
    claim = judged([row], "FID", steps="32", **line)
    assert (claim.verdict, claim.keys) == ("not comparable", ("protocol",))
