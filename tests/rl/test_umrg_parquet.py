"""U-MRG-14K's published parquet layout, written here with pyarrow as `datasets` writes it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from rl_training.dataset import DataError, UmrgParquet, examples_of
from rl_training.dataset.masks import mask_on
from rl_training.dataset.placing import place_of
from rl_training.prepare import open_reader, prepare

SIDE = 84
PATTERN = r"^([a-z]+_\d+)_"
SHARES = {"train": 0.8, "val": 0.2, "test": 0.0}


def encoded(pixels: np.ndarray[Any, Any]) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def row(number: int, with_mask: bool, **change: Any) -> dict[str, Any]:
    picture = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    mask = np.zeros((SIDE, SIDE), np.uint8)
    mask[20 + number : 50, 30:60] = 255
    place = place_of(mask > 0)
    assert place is not None
    truth = {"bbox_2d": place[0].as_list(), "point_2d": [[p.x, p.y] for p in place[1]]}
    name = f"covid_{number // 2}_X-Ray_chest_left_lung_00{number % 2}"
    values = {
        "data_source": "umrg",
        "prompt": [{"role": "user", "content": f"What lies beside the heart in picture {number}?"}],
        "images": [{"bytes": encoded(picture), "path": None}],
        "reward_model": {"ground_truth": json.dumps(truth), "style": "rule"},
        "extra_info": {"id": name, "supercategory": "lung", "category": "left lung"},
    }
    if with_mask:
        values["masks"] = [{"bytes": encoded(mask), "path": None}]
    return {**values, **change}


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=4)
    return path


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("umrg")
    write(folder / "train.parquet", [row(n, False) for n in range(10)])
    write(folder / "test-00000-of-00001.parquet", [row(n, True) for n in range(10, 16)])
    return folder


def test_rows_become_examples(published: Path) -> None:
    reader = UmrgParquet(published, PATTERN)
    assert len(reader) == 16
    by_split = {split: list(examples_of(reader, split)) for split in ("train", "test")}
    assert [len(found) for found in by_split.values()] == [10, 6]
    example = by_split["train"][9]
    assert example.where == "train.parquet row 9 (covid_4_X-Ray_chest_left_lung_001)"
    assert example.questions.by_style["implicit"] == ["What lies beside the heart in picture 9?"]
    assert (example.target, example.laterality, example.modality) == ("left lung", "left", "DX")
    assert (example.group, example.source, example.mask) == ("covid_4", "u-mrg-14k", None)
    assert example.box is not None and example.box.as_list() == [30, 29, 60, 50]
    assert example.picture().pixels.shape == (SIDE, SIDE, 3)


def test_masks_of_the_test_file_lie_under_the_given_boxes(published: Path) -> None:
    for example in examples_of(UmrgParquet(published), "test"):
        mask = mask_on(example, example.picture())
        assert mask is not None
        assert place_of(mask) == (example.box, example.points)


def test_prepare_cuts_validation_out_of_train_by_patient(published: Path) -> None:
    card = prepare(open_reader(published, patient_pattern=PATTERN), published, None, SHARES)
    counts = {split: about["examples"] for split, about in card["splits"].items()}
    assert counts["test"] == 6 and counts["val"] == 2 and counts["train"] == 8
    assert card["splits"]["val"]["patients"] == 1, "both rows of one patient"
    assert card["boxes_and_points"] == {"given": 16}


def test_without_a_pattern_the_picture_is_the_group(published: Path) -> None:
    card = prepare(open_reader(published), published, None, SHARES)
    assert sum(about["patients"] for about in card["splits"].values()) == 16


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"images": []}, "has no image"),
        ({"images": [{"bytes": b"", "path": None}]}, "has no image"),
        ({"images": [{"bytes": b"not a picture", "path": None}]}, "the image cannot be read"),
        ({"masks": [{"bytes": encoded(np.full((9, 7), 255, np.uint8)), "path": None}]}, "the mask is 7 x 9, its image"),
        ({"masks": [{"bytes": encoded(np.zeros((SIDE, SIDE), np.uint8)), "path": None}]}, "the mask is empty"),
        ({"masks": [{"bytes": b"\x89PNG", "path": None}]}, "the mask cannot be read"),
        ({"prompt": [{"role": "user", "content": "<image>  "}]}, "the question is empty"),
        ({"reward_model": {"ground_truth": "{}", "style": ""}}, "has no ground_truth"),
        ({"reward_model": {"ground_truth": "none", "style": ""}}, "has no ground_truth"),
        (
            {"reward_model": {"ground_truth": '{"bbox_2d": [9, 9, 3, 12], "point_2d": [[1, 2], [3, 4]]}', "style": ""}},
            "has no area",
        ),
        (
            {"reward_model": {"ground_truth": '{"bbox_2d": [1, 1, 3], "point_2d": [[1, 2], [3, 4]]}', "style": ""}},
            "cannot be used",
        ),
        (
            {
                "reward_model": {
                    "ground_truth": '{"bbox_2d": [1, 1, 3, NaN], "point_2d": [[1, 2], [3, 4]]}',
                    "style": "",
                }
            },
            "cannot be used",
        ),
    ],
)
def test_a_bad_row_is_named(tmp_path: Path, change: dict[str, Any], what: str) -> None:
    file = write(tmp_path / "test.parquet", [row(0, True), row(1, True, **change)])
    reader = UmrgParquet(file)
    assert reader[0].picture().width == SIDE

    def use() -> None:
        example = reader[1]
        mask_on(example, example.picture())

    with pytest.raises(DataError, match=rf"test\.parquet row 1 .*{what}"):
        use()


def test_text_that_is_not_utf8_is_named(tmp_path: Path) -> None:
    rows = [row(n, False) for n in range(3)]
    table = pyarrow.Table.from_pylist(rows)
    bad = pyarrow.array([b"fine", b"caf\xe9", b"fine"], pyarrow.binary()).view(pyarrow.string())
    position = table.column_names.index("data_source")
    file = tmp_path / "train.parquet"
    pyarrow.parquet.write_table(table.set_column(position, "data_source", bad), file)
    reader = UmrgParquet(file)
    assert reader[0].target == "left lung"
    with pytest.raises(DataError, match=r"train\.parquet row 1: its text is not UTF-8"):
        reader[1]


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no \.parquet file"):
        UmrgParquet(tmp_path)
    (tmp_path / "a.parquet").write_bytes(b"PAR1 not really")
    with pytest.raises(DataError, match=r"a\.parquet cannot be read"):
        UmrgParquet(tmp_path)
    pyarrow.parquet.write_table(pyarrow.table({"text": ["x"]}), tmp_path / "a.parquet")
    with pytest.raises(DataError, match="lacks the columns extra_info, images, prompt, reward_model"):
        UmrgParquet(tmp_path / "a.parquet")


def test_a_pattern_that_finds_no_patient_is_an_error(published: Path) -> None:
    with pytest.raises(DataError, match="finds nothing in its id"):
        UmrgParquet(published, "patient_([0-9]+)")[0]
