"""The demonstration in miniature: two training steps, everything else real."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from configs.fnevr import demo_64
from talking_heads_jax.media.video import VideoReader
from talking_heads_jax.workflows.demo import DemoSizes, run_demo


@pytest.mark.integration
def test_run_demo_leaves_a_page_whose_files_exist(tmp_path, capsys):
    config = demo_64.get_config("debug")
    sizes = DemoSizes(train_clips=1, test_clips=1, num_frames=3)
    result = run_demo(tmp_path / "demo", config=config, sizes=sizes)
    page = result.page.read_text(encoding="utf-8")
    links = re.findall(r'src="([^"]+)"', page)
    assert len(links) == 2
    assert all((tmp_path / "demo" / link).is_file() for link in links)
    metrics = json.loads((tmp_path / "demo" / "evaluation" / "metrics.json").read_text())
    rows = metrics["rows"]
    assert set(rows) >= {"model", "copy_source", "blur_source_2px", "copy_driving"}
    # Copying the driving frame is perfect by definition; two steps teach nothing.
    assert rows["copy_driving"]["l1/unit"]["mean"] == 0
    gain = min(rows[name]["l1/unit"]["mean"] for name in rows if "source" in name)
    assert np.isclose(result.gain, gain - rows["model"]["l1/unit"]["mean"], atol=1e-6)
    with VideoReader(tmp_path / "demo" / "media" / "animation.mp4") as video:
        assert sum(1 for _ in video) == 72
    assert Image.open(tmp_path / "demo" / "media" / "source.png").size == (64, 64)
    assert "copy_source" in capsys.readouterr().out

    # A second run finds everything done, and says the same.
    again = run_demo(tmp_path / "demo", config=config, sizes=sizes)
    assert again.gain == result.gain
