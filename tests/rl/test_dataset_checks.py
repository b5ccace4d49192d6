"""The cut by patient, the search for leaks, and the one rule for boxes and points."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import skimage
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageEnhance

from rl_training.dataset import DataError
from rl_training.dataset.leakage import ALIKE, Seen, find_leaks, thumbnail
from rl_training.dataset.placing import is_dispersed, place_of
from rl_training.dataset.splitting import SHARES, cut

PHOTOS = Path(skimage.__file__).parent / "data"


def pixels(name: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(PHOTOS / name).convert("RGB"))


def seen(where: str, split: str, shown: NDArray[np.uint8], group: str = "", question: str = "") -> Seen:
    return Seen(where, split, group or where, str(hash(shown.tobytes())), thumbnail(shown), (question or where,))


@given(st.lists(st.integers(1, 9), min_size=3, max_size=60), st.integers(0, 5))
def test_every_group_has_one_split_and_every_split_a_group(sizes: list[int], seed: int) -> None:
    groups = [f"p{number}" for number, size in enumerate(sizes) for _ in range(size)]
    splits = cut(groups, [""] * len(groups), seed=seed)
    assert splits.keys() == set(groups)
    assert set(splits.values()) == {"train", "val", "test"}
    assert cut(groups, [""] * len(groups), seed=seed) == splits


def test_shares_are_met_and_another_seed_cuts_otherwise() -> None:
    groups = [f"p{number}" for number in range(200) for _ in range(number % 7 + 1)]
    splits = cut(groups, [""] * len(groups))
    for split, share in SHARES.items():
        assert sum(splits[group] == split for group in groups) / len(groups) == pytest.approx(share, abs=0.01)
    other = cut(groups, [""] * len(groups), seed=1)
    assert sum(other[group] != splits[group] for group in splits) > 50


def test_given_splits_stay_and_the_rest_is_dealt() -> None:
    groups = [f"p{number}" for number in range(20)]
    given_splits = ["test"] * 4 + [""] * 16
    splits = cut(groups, given_splits)
    assert [splits[g] for g in groups[:4]] == ["test"] * 4
    assert sum(split == "test" for split in splits.values()) == 4, "the test split has its fifth already"


def test_validation_comes_out_of_train_where_only_train_and_test_are_given() -> None:
    groups = [f"p{number}" for number in range(40)]
    splits = cut(groups, ["train"] * 32 + ["test"] * 8)
    assert [splits[g] for g in groups[32:]] == ["test"] * 8
    assert sum(split == "val" for split in splits.values()) == 4, "1 / 8 of train, as the shares have it"


@pytest.mark.parametrize(
    ("groups", "given_splits", "shares", "what"),
    [
        (["a", "a"], ["train", "test"], SHARES, "'a' is in train and in test"),
        (["a", "b"], ["", ""], SHARES, "2 patients or groups cannot fill the splits train, val, test"),
        (["ANON"] * 9, [""] * 9, SHARES, "1 patients or groups cannot fill"),
        (["a"], [""], {"train": 0.5, "val": 0.1, "test": 0.1}, "not those of three splits"),
        (["a"], [""], {"train": 1.0}, "not those of three splits"),
        (["a"], [""], {"train": 1.2, "val": -0.2, "test": 0.0}, "not those of three splits"),
    ],
)
def test_a_cut_that_cannot_be_made_is_an_error(
    groups: list[str], given_splits: list[str], shares: dict[str, float], what: str
) -> None:
    with pytest.raises(DataError, match=what):
        cut(groups, given_splits, shares)


def test_a_share_of_zero_leaves_a_split_out() -> None:
    assert set(cut(["a", "b"], ["", ""], {"train": 1.0, "val": 0.0, "test": 0.0}).values()) == {"train"}


def saved_again(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    stream = io.BytesIO()
    Image.fromarray(shown).save(stream, "JPEG", quality=40)
    return np.asarray(Image.open(stream))


def resized(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(Image.fromarray(shown).resize((210, 190)))


def brighter(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.asarray(ImageEnhance.Contrast(ImageEnhance.Brightness(Image.fromarray(shown)).enhance(1.1)).enhance(0.9))


def noisy(shown: NDArray[np.uint8]) -> NDArray[np.uint8]:
    noise = np.random.default_rng(0).normal(0, 12, shown.shape)
    return np.clip(shown + noise, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("copied", [saved_again, resized, brighter, noisy])
@pytest.mark.parametrize("name", ["retina.jpg", "camera.png", "coins.png"])
def test_changed_copies_look_alike(copied: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], name: str) -> None:
    shown = pixels(name)
    leaks = find_leaks([seen("a", "train", shown), seen("b", "test", copied(shown))])
    assert leaks.alike == [("a", "b")] and not leaks.pictures


def test_other_pictures_do_not_look_alike() -> None:
    names = [p.name for p in sorted(PHOTOS.iterdir()) if p.suffix in (".png", ".jpg") and "_" not in p.stem]
    rows = [seen(name, "train" if n % 2 else "test", pixels(name)) for n, name in enumerate(names)]
    assert len(rows) > 8
    assert find_leaks(rows).alike == []
    shown = pixels("retina.jpg")
    mirrored = np.ascontiguousarray(shown[:, ::-1])
    assert thumbnail(shown) @ thumbnail(mirrored) < ALIKE, "a mirrored fundus is another eye"


def test_pictures_of_one_grey_level_are_like_nothing() -> None:
    black, white = (np.full((40, 40, 3), level, np.uint8) for level in (0, 255))
    assert find_leaks([seen("a", "train", black), seen("b", "test", white)]).alike == []


def test_equal_pictures_patients_and_wordings_are_found_once_and_only_between_splits() -> None:
    shown = pixels("camera.png")
    rows = [
        seen("a", "train", shown, "p1", "Where is it?"),
        seen("b", "train", shown, "p1", "Which one?"),
        seen("c", "test", shown, "p2", "where is IT"),
        seen("d", "test", pixels("retina.jpg"), "p1", "Which two?"),
    ]
    leaks = find_leaks(rows)
    assert leaks.pictures == [("a", "c")] and leaks.patients == [("a", "d")] and leaks.alike == []
    assert leaks.questions == ["where is it"]
    assert find_leaks(rows[:2]).pictures == find_leaks(rows[:2]).patients == []
    assert find_leaks([]).alike == []


def disc(x: int, y: int, radius: int) -> NDArray[np.bool_]:
    ys, xs = np.mgrid[:60, :90]
    return np.asarray((xs - x) ** 2 + (ys - y) ** 2 <= radius**2)


@given(st.integers(0, 60), st.integers(0, 80))
def test_the_rule_does_not_depend_on_where_the_target_lies(x: int, y: int) -> None:
    shape = disc(20, 20, 9) | disc(30, 26, 6)
    board = np.zeros((150, 160), bool)
    board[y : y + 60, x : x + 90] = shape
    here, there = place_of(shape), place_of(board)
    assert here is not None and there is not None
    assert [there[0].x_min - here[0].x_min, there[0].y_max - here[0].y_max] == [x, y]
    assert [(p.x - x, p.y - y) for p in there[1]] == [(p.x, p.y) for p in here[1]]


def test_an_empty_mask_has_no_place() -> None:
    assert place_of(np.zeros((5, 5), bool)) is None


@pytest.mark.parametrize(
    ("mask", "dispersed"),
    [
        (disc(20, 20, 9), False),
        (disc(20, 20, 9) | disc(50, 20, 9), False),
        (disc(10, 10, 5) | disc(30, 10, 5) | disc(50, 10, 5) | disc(70, 10, 5), True),
        (disc(30, 30, 20) | disc(3, 3, 2) | disc(60, 3, 2) | disc(80, 50, 2), False),
    ],
    ids=["one piece", "a pair", "four like pieces", "one piece and crumbs"],
)
def test_dispersed_means_many_pieces_and_none_of_them_half(mask: NDArray[np.bool_], dispersed: bool) -> None:
    assert is_dispersed(mask) == dispersed
