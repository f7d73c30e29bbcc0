"""Rows run once, in the order of their needs; the page shows what json files say, and no more."""

import json

import numpy as np
import pytest

from configs.common import check_config
from configs.eval import load_protocol
from talking_heads_jax.errors import ArgumentError
from talking_heads_jax.evaluation.mesh_answers import MESH_WARP
from talking_heads_jax.workflows import results, results_page
from talking_heads_jax.workflows.result_measurements import row_metrics
from talking_heads_jax.workflows.result_pictures import enlarged, worst_pairs
from talking_heads_jax.workflows.result_rows import ROWS, TABLES, DataRow, TrainingRow
from talking_heads_jax.workflows.results import Places, in_order, main, run_rows, training_config

_PAGE = "".join(
    f"words\n<!-- results:{name} -->\nformer\n<!-- end:{name} -->\n"
    for name in (*TABLES, "pose-editor", "pictures", "rows")
)


@pytest.fixture
def places(tmp_path):
    (tmp_path / "page.md").write_text(_PAGE)
    return Places(tmp_path / "work", tmp_path / "results", tmp_path / "page.md")


def _protocol(scale: float, *, mesh_driven: bool = False, error: float = 0.0) -> dict:
    """Numbers of one protocol as evaluation writes them; `error` is added to the face L1."""
    value = {"mean": 0.25 * scale, "low": 0.2 * scale, "high": 0.3 * scale}
    recipes = ("l1/masked-face", "l1/masked-mouth", "l1/masked-eyes", "retrieval_mouth")
    numbers = dict.fromkeys(recipes, value)
    shape = {"mean": 0.7, "low": 0.6, "high": 0.8}
    warps = {MESH_WARP: numbers} if mesh_driven else {}
    return {
        "rows": {"model": {**numbers, "shape_kept": shape}, "copy_source": numbers, **warps},
        "share_below": {
            "copy_source": numbers,
            **{row: {"l1/masked-face": {"mean": 0.4, "low": 0.3, "high": 0.5}} for row in warps},
            "blur_source_1px": {recipe: {**value, "mean": 0.9} for recipe in recipes},
            "blur_source_2px": numbers,
        },
        "references": {"the probe itself": {"probe_angles_deg": 2.5}},
        "gain_over_best_trivial": {
            "l1/masked-face": {"trivial": "copy_source", "mean": 0.01, "low": 0.002, "high": 0.02},
            "l1/masked-mouth": {"trivial": "copy_source", "mean": 0.01, "low": -0.1, "high": 0.2},
        },
        "pairs": [
            {
                "name": f"{i}",
                "identities": [f"p{i}", f"p{i}"],
                "model": {"l1/masked-face": 0.1 * i + error, "l1/masked-mouth": 0.1 * i * error},
            }
            for i in (-1, 0, 1)
        ],
    }


def test_every_row_has_its_needs_before_it_and_a_config_that_exists(tmp_path):
    ordered = in_order([])
    assert {row.name for row in ordered} == {row.name for row in ROWS}
    names = [row.name for row in ordered]
    for row in ordered:
        for needed in results.needed_rows(row):
            assert names.index(needed) < names.index(row.name)
        if isinstance(row, TrainingRow):
            config = training_config(row, tmp_path)
            check_config(config)
            assert config.seed == row.seed and config.data.folder == str(tmp_path)
            data = next(data for data in ROWS if data.name == row.data)
            assert config.model.resolution == data.size
            assert bool(row.heads) == (data.morphable != "procedural") and row.asset == data.asset
            assert row.table in TABLES and row.minutes <= 12
    assert [row.name for row in in_order(["fnevr-32"])] == [
        "data-32", "data-probe", "probe", "fnevr-32",
    ]  # fmt: skip


def test_rows_that_cannot_be_run_are_refused(tmp_path, capsys):
    with pytest.raises(ArgumentError, match="Rows: data-64"):
        in_order(["fnevr-46"])
    circle = (DataRow("a", 64, {}, needs=("b",)), DataRow("b", 64, {}, needs=("a",)))
    with pytest.raises(ArgumentError, match="a -> b -> a"):
        in_order(["a"], circle)
    row = TrainingRow("x", "X", "headline", "fnevr/synthetic_64.py", "d", overrides={"data.a": 1})
    with pytest.raises(ArgumentError, match=r"data\.a"):
        training_config(row, tmp_path)
    assert main(["--again"]) == 2
    assert "--row" in capsys.readouterr().err


def test_rows_without_their_file_are_left_out_and_said_so(places, monkeypatch):
    monkeypatch.setattr(results, "_run_row", lambda row, places, say: pytest.fail(row.name))
    monkeypatch.setattr("talking_heads_jax.assets.registered_assets", dict)
    said = []
    needed = [row for row in in_order(["gdpw-ict-32"]) if getattr(row, "asset", "")]
    assert [row.name for row in needed] == ["data-ict-32", "gdpw-ict-32"]
    run_rows(needed, places, say=said.append)
    assert [line for line in said if line.startswith("gdpw-ict-32: left out")]
    assert "'ict'" in said[-1] and not places.report("gdpw-ict-32").exists()
    page = places.page.read_text()
    assert "| BFM | not measured: licensed file |" in page
    # What was measured on another machine stays, and nothing is prepared for what cannot be run.
    kept = {"seconds": 1.0, "machine": "m", "date": "d", "revision": "r"}
    protocols = {name: _protocol(1) for name in ("synthetic_same", "synthetic_cross")}
    places.report("gdpw-ict-32").write_text(json.dumps({"protocols": protocols, **kept}))
    arguments = [("--work", places.work), ("--output", places.output), ("--page", places.page)]
    flags = [str(word) for pair in arguments for word in pair]
    assert main(["--row", "gdpw-ict-32", "--again", *flags]) == 0
    assert places.report("gdpw-ict-32").exists()


def test_a_row_runs_once_and_again_when_asked(places, monkeypatch):
    ran = []

    def run(row, places, say):
        ran.append(row.name)
        places.data(row.name).mkdir(parents=True, exist_ok=True)
        (places.data(row.name) / "clips.json").write_text("")
        (places.run(row.name) / "left").write_text("behind")
        if len(ran) == 2:
            raise KeyboardInterrupt  # killed: the next call must go on with this row
        return {"records": {}}

    monkeypatch.setattr(results, "_run_row", run)
    rows = (DataRow("one", 64, {}), DataRow("two", 64, {}, needs=("one",)))
    places.run("one").mkdir(parents=True)
    places.run("two").mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        run_rows(rows, places)
    assert places.report("one").is_file() and not places.report("two").exists()
    run_rows(rows, places)
    run_rows(rows, places)
    assert ran == ["one", "two", "two"]
    seconds = json.loads(places.report("two").read_text())["seconds"]
    assert 0 <= seconds < 60
    # Data sets are not kept, or were killed half-way: needed only where something is left.
    (places.data("one") / "clips.json").unlink()

    def finished(row):
        return results.is_finished(row, places)

    assert [row.name for row in in_order(["two"], rows, finished=finished)] == ["two"]
    places.report("two").unlink()
    assert [row.name for row in in_order(["two"], rows, finished=finished)] == ["one", "two"]
    assert not finished(rows[0])
    places.data("two").joinpath("old").write_text("")
    results.forget(rows[1], places)
    assert not places.data("two").exists() and not places.run("two").exists()


def test_a_finished_training_is_measured_again_without_training(places, monkeypatch):
    def measure(row, run, data, output):
        assert not (run / "evaluation").exists() and (run / "checkpoints").exists()
        return {"protocols": {name: _protocol(2) for name in row.protocols}}

    monkeypatch.setattr("talking_heads_jax.workflows.result_measurements.measure_training", measure)
    monkeypatch.setattr(results, "_train", lambda row, places: pytest.fail("trained"))
    flags = [("--work", places.work), ("--output", places.output), ("--page", places.page)]
    arguments = [str(word) for pair in flags for word in pair] + ["--row", "gdpw-both-32"]
    arguments.append("--remeasure")
    _write_reports(places, {"gdpw-both-32": _protocol(1)})
    assert main(arguments) == 2  # its folder is gone
    for name in ("evaluation", "checkpoints"):
        (places.run("gdpw-both-32") / name).mkdir(parents=True)
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--again"])
    assert main(arguments) == 0
    report = json.loads(places.report("gdpw-both-32").read_text())
    assert report["seconds"] == 1.0 and report["revision"] == "talking_heads_jax 0"
    assert report["measured"]["revision"] != report["revision"]
    assert "measured again" in places.page.read_text()
    assert "geom. disp. + neural codes | 0.5000 |" in places.page.read_text()


def test_the_page_shows_finished_rows_and_keeps_the_words(places):
    places.output.mkdir()
    names = ("synthetic_same", "synthetic_cross")
    report = {
        "protocols": {name: _protocol(1 + i) for i, name in enumerate(names)},
        "training": {"steps": 7, "parameters": {"generator": 1_500_000}},
        "pose_editor_deg": {
            key: {"mean": 1.5, "low": None, "high": None, "yaw": 1.0, "pitch": 2.0, "roll": 1.5}
            for key in ("edited", "source", "probe")
        },
        "seconds": 90.0,
        "machine": "a processor",
        "date": "2026-01-01",
        "revision": "0123456789",
    }
    places.report("fnevr-64").write_text(json.dumps(report))
    (places.output / "fnevr-64.png").write_bytes(b"")
    results_page.write_results_page(places.page, places.output)
    page = places.page.read_text()
    assert page.count("words") == _PAGE.count("words") and "former" not in page
    same, cross = (
        next(line for line in part.splitlines() if line.startswith("| FNeVR, seed 0 "))
        for part in page.split("across identities")[:2]
    )
    # Face error; below the copy; the blurred source it is least far below, mouth and eyes.
    assert same.split(" | ")[1:7] == [
        "0.2500", "25.0 [20.0, 30.0]", "–", "25.0 [20.0, 30.0]", "25.0 [20.0, 30.0]", "0.25",
    ]  # fmt: skip
    assert cross.split(" | ")[1] == "0.5000"
    assert "| *the probe itself* | – |" in page and " 2.50 |" in page
    assert "| `fnevr-64` | `fnevr/synthetic_64.py`, seed 0 | 1.5 | 7 | 1.50 M |" in page
    assert "![fnevr-64](results/fnevr-64.png)" in page
    assert "| FNeVR, seed 1 | not yet measured |" in page
    results_page.write_results_page(places.page, places.output)
    assert places.page.read_text() == page
    places.page.write_text(_PAGE.replace("<!-- end:rows -->", ""))
    with pytest.raises(ArgumentError, match="rows missing or unknown"):
        results_page.write_results_page(places.page, places.output)


def test_trivial_answers_stand_beside_rows_of_their_own_heads(places):
    places.output.mkdir()
    described = {"seconds": 1.0, "machine": "m", "date": "d", "revision": "r"}
    for scale, name in enumerate(("gdpw-both-32", "gdpw-ict-32"), start=1):
        protocols = {name: _protocol(scale) for name in ("synthetic_same", "synthetic_cross")}
        share = protocols["synthetic_same"]["share_below"]["blur_source_1px"]["l1/masked-mouth"]
        share["mean"] = None  # no frame shows a mouth
        places.report(name).write_text(json.dumps({"protocols": protocols, **described}))
    results_page.write_results_page(places.page, places.output)
    page = places.page.read_text()
    assert page.count("| *copy source* | 0.2500 |") == 2
    assert page.count("| *copy source*, ICT heads | 0.5000 |") == 2


def test_the_page_shows_what_mesh_driven_rows_are_judged_by(places):
    _write_reports(places, {"gdpw-64": _protocol(1, mesh_driven=True), "fnevr-64": _protocol(1)})
    page = places.page.read_text()
    titles = next(line for line in page.splitlines() if "below mesh warp" in line).split(" | ")
    mesh, shape = titles.index("below mesh warp, %"), titles.index("shape kept ↑ |")
    for name, expected in (("GDPW", "40.0 [30.0, 50.0]"), ("FNeVR", "–")):
        cells = next(line for line in page.splitlines() if f"| {name}, seed 0" in line).split(" | ")
        assert cells[mesh] == expected and cells[shape] == "0.70 [0.60, 0.80] |"
    # Whichever row comes last, the warp stays among the trivial answers.
    assert page.count("| *warp source by mesh* | 0.2500 |") == 2
    gains = [line for line in page.splitlines() if "**0.0100 [0.0020, 0.0200]**" in line]
    assert len(gains) == 4 and all("| 0.0100 [-0.1000, 0.2000] |" in line for line in gains)


def test_the_page_compares_rows_pair_by_pair(places):
    """The same people, each a little worse: far less than people differ, and yet certain."""
    _write_reports(places, {"gdpw-both-32": _protocol(1), "gdpw-nmfc-32": _protocol(1, error=0.02)})
    page = places.page.read_text()
    (line, *others) = (
        line for line in page.splitlines() if "NMFC − geom. disp. + neural codes" in line
    )
    cells = line.split(" | ")
    assert cells[1] == "**0.0200 [0.0200, 0.0200]**"
    # What no row has, eyes and SSIM among it, is no column.
    assert cells[2].startswith("0.0000 [-0.00") and len(cells) == 3
    assert len(others) == 1  # the other protocol


def _write_reports(places, protocols):
    places.output.mkdir()
    described = {"seconds": 1.0, "machine": "m", "date": "d", "backend": "cpu"}
    described["revision"] = "talking_heads_jax 0"
    for name, numbers in protocols.items():
        both = dict.fromkeys(("synthetic_same", "synthetic_cross"), numbers)
        report = {"protocols": both, **described}
        if name == "fnevr-64":
            report["pose_editor_deg"] = {
                key: {"mean": 1.5, "low": None, "high": None, "yaw": 1.0, "pitch": 2.0, "roll": 1.5}
                for key in ("edited", "source", "probe")
            }
        places.report(name).write_text(json.dumps(report))
    results_page.write_results_page(places.page, places.output)
    assert "m, d, talking_heads_jax 0 |" in places.page.read_text()


def test_heads_that_the_probe_does_not_know_are_scored_without_it():
    for protocol in ("synthetic_same", "synthetic_cross"):
        whole = row_metrics(protocol, seen_by_probe=True)
        assert whole == tuple(load_protocol(protocol).metrics)
        part = row_metrics(protocol, seen_by_probe=False)
        assert part == tuple(name for name in whole if not name.startswith("probe_")) != whole


def test_worst_pairs_leave_out_what_shows_no_mouth():
    errors = [0.1, float("nan"), 0.4, 0.2, 0.4]
    assert worst_pairs(errors, 2) == [2, 4] and worst_pairs(errors, 9) == [0, 2, 3, 4]
    assert worst_pairs([float("nan")], 3) == []


def test_enlarged_pictures_repeat_pixels():
    grid = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3)
    large = enlarged(grid, size=64)
    assert large.shape == (6, 9, 3)
    np.testing.assert_array_equal(large[1::3, 1::3], grid)
    np.testing.assert_array_equal(enlarged(grid, size=512), grid)
