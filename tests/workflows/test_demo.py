"""The demonstration in miniature: two training steps, everything else real."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from configs.fnevr import synthetic_64
from talking_heads_jax.media.video import VideoReader
from talking_heads_jax.workflows.demo import DemoSizes, run_demo


@pytest.mark.integration
def test_run_demo_leaves_a_page_whose_files_exist(tmp_path, capsys):
    config = synthetic_64.get_config("debug")
    sizes = DemoSizes(train_people=2, test_people=2, num_frames=4)
    result = run_demo(tmp_path / "demo", config=config, sizes=sizes)
    page = result.page.read_text(encoding="utf-8")
    links = re.findall(r'src="([^"]+)"', page)
    assert len(links) == 4
    assert all((tmp_path / "demo" / link).is_file() for link in links)
    metrics = json.loads((tmp_path / "demo" / "evaluation" / "metrics.json").read_text())
    rows = metrics["rows"]
    assert set(rows) >= {"model", "copy_source", "blur_source_2px", "copy_driving"}
    # Copying the driving frame is perfect by definition; two steps teach nothing.
    face = {name: columns["l1/masked-face"]["mean"] for name, columns in rows.items()}
    assert face["copy_driving"] == 0
    best = min(value for name, value in face.items() if "source" in name)
    assert np.isclose(result.gain, best - face["model"], atol=1e-6)
    with VideoReader(tmp_path / "demo" / "media" / "animation.mp4") as video:
        assert sum(1 for _ in video) == 75
    assert Image.open(tmp_path / "demo" / "media" / "source.png").size == (64, 64)
    assert "copy_source" in capsys.readouterr().out

    # A second run finds everything done, and says the same.
    again = run_demo(tmp_path / "demo", config=config, sizes=sizes)
    assert again.gain == result.gain
