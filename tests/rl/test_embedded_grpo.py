"""GRPO of the embedded reasoner: its likelihoods, its actor, its advantages, what it learns, its files."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small import END, GRID, IMAGE, SIDE, START
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from medreasoner.contract.answer import AbsentAnswer, Answer, Box, GroundingAnswer, Point
from medreasoner.contract.errors import CheckpointError, MedReasonerError
from medreasoner.evaluation.cases import read_samples
from medreasoner.expert import load_expert
from medreasoner.folders import embedded_folder
from medreasoner.picture import Picture
from medreasoner.reasoner.adapter import CONFIG, WEIGHTS, merge_adapter
from medreasoner.reasoner.quantised import load_quantised, save_quantised
from rl_training import embedded_grpo, pack
from rl_training.config import EmbeddedGrpoConfig, SftConfig
from rl_training.feed import Feed
from rl_training.forward import to_patches
from rl_training.mask_scores import MaskScores
from rl_training.pack import load_masks, open_pictures
from rl_training.policy import Asked, Policy
from rl_training.questions import training_absent, training_entries
from rl_training.reinforcement import Run, answers_before, group_advantages, low_variance_divergence
from rl_training.rewards import mask_dice, masks_from
from rl_training.tiny import configuration
from tests.collection import make_collection

GROUP, ANSWER = 2, 5


def stirred(policy: Policy) -> Policy:
    """Give the adapters, which begin as nothing, something to change."""
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in policy.parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return policy


@pytest.fixture
def policy(model: Any) -> Policy:
    return stirred(Policy(copy.deepcopy(model), EmbeddedGrpoConfig({"paper_soft": 1}, rank=2, alpha=3)))


@pytest.fixture(scope="module")
def asked(pictures: torch.Tensor) -> Asked:
    """Two questions whose prompts differ in length and in where the picture stands."""
    rows = [[5, 6, 7, START, *[IMAGE] * GRID**2, END, 8], [9, START, *[IMAGE] * GRID**2, END, 10, 11, 12, 13]]
    longest = max(map(len, rows))
    ids = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    return Asked(ids, torch.tensor([len(row) for row in rows]), torch.tensor([4, 2]), pictures[:2])


@torch.no_grad()
def test_likelihoods_are_those_of_transformers(policy: Policy, asked: Asked) -> None:
    tokens = torch.randint(2, 90, (2 * GROUP, ANSWER), generator=torch.Generator().manual_seed(6))
    for start in (False, True):
        found = policy.log_likelihoods(asked, tokens, start)
        for row in range(2 * GROUP):
            question = row // GROUP
            ids = torch.cat([asked.ids[question, : asked.lengths[question]], tokens[row]])[None]
            given = {
                "input_ids": ids,
                "mm_token_type_ids": (ids == IMAGE).int(),
                "pixel_values": to_patches(asked.pictures[question : question + 1])[0],
                "image_grid_thw": torch.tensor([[1, SIDE // 14, SIDE // 14]]),
            }
            if start:
                with policy.adapted.disable_adapter():
                    logits = policy.model(**given).logits
            else:
                logits = policy.model(**given).logits
            expected = logits[0, -ANSWER - 1 : -1].log_softmax(-1).gather(1, tokens[row][:, None])[:, 0]
            torch.testing.assert_close(found[row], expected, atol=1e-4, rtol=1e-4)


def test_the_actor_and_the_saved_adapter_are_the_policy(policy: Policy, model: Any, tmp_path: Path) -> None:
    policy.refresh_actor()
    policy.save(tmp_path)
    plain = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    merge_adapter(plain, tmp_path)
    actor = policy.actor.state_dict()
    changed = [name for name in plain if not torch.equal(plain[name], model.state_dict()[name])]
    assert len(changed) == 2 * 7 + 2 * 5  # two layers of the trunk, two blocks of the tower; not the patch embedding
    for name in plain:
        torch.testing.assert_close(actor[name], plain[name], atol=2e-3, rtol=2e-3)  # the file holds float16

    other = Policy(copy.deepcopy(model), policy_config(policy))
    other.load(tmp_path)
    for mine, theirs in zip(other.parameters, policy.parameters, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)


def policy_config(policy: Policy) -> EmbeddedGrpoConfig:
    settings: Any = policy.adapted.peft_config["default"]
    return EmbeddedGrpoConfig({"paper_soft": 1}, rank=settings.r, alpha=settings.lora_alpha)


def test_an_adapter_of_another_model_is_refused(policy: Policy, tmp_path: Path) -> None:
    save_file({"base_model.model.model.other.lora_A.weight": torch.zeros(2, 3)}, tmp_path / WEIGHTS)
    with pytest.raises(CheckpointError, match="another model"):
        policy.load(tmp_path)


ADVANTAGES = {
    "apart": ([0.0, 1.0, 2.0, 3.0], [-1.5, -0.5, 0.5, 1.5], 1.2910),  # deviation of four with n - 1
    "all equal": ([2.0, 2.0, 2.0, 2.0], [0.0, 0.0, 0.0, 0.0], 0.0),
    "one stands out": ([0.0, 0.0, 0.0, 4.0], [-1.0, -1.0, -1.0, 3.0], 2.0),
}


@pytest.mark.parametrize("name", ADVANTAGES)
def test_advantages_are_relative_to_the_group(name: str) -> None:
    rewards, centred, deviation = ADVANTAGES[name]
    other = [7.0, 9.0, 7.0, 9.0]
    found = group_advantages(torch.tensor([*rewards, *other]), 4)
    assert found[:4].tolist() == pytest.approx([c / (deviation + 1e-4) for c in centred], abs=1e-3)
    assert found[4:].tolist() == pytest.approx([-0.866, 0.866, -0.866, 0.866], abs=1e-3)


def test_the_divergence_is_that_of_the_distributions() -> None:
    generator = torch.Generator().manual_seed(9)
    policy, start = (torch.randn(6, generator=generator).log_softmax(0) for _ in range(2))
    drawn = torch.multinomial(policy.exp(), 200_000, replacement=True, generator=generator)
    estimate = low_variance_divergence(policy[drawn], start[drawn])
    assert (estimate >= 0).all()
    assert float(estimate.mean()) == pytest.approx(float((policy.exp() * (policy - start)).sum()), rel=0.02)
    assert torch.equal(low_variance_divergence(policy, policy), torch.zeros(6))


def test_an_answer_ends_before_its_stop_token_also_where_that_is_the_last_that_fits() -> None:
    tokens = torch.tensor([[5, 6, 1, 0], [5, 6, 7, 1], [5, 6, 7, 8], [1, 0, 0, 0]])
    assert answers_before(1, tokens) == [[5, 6], [5, 6, 7], [5, 6, 7, 8], []]


@pytest.fixture(scope="module")
def collection(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """Data, the same packed, and a base folder of two layers with the embedded reasoner's tokenizer."""
    folder = tmp_path_factory.mktemp("grpo")
    data, packed, base = make_collection(folder / "data"), folder / "packed", folder / "base"
    pack.pack(data, packed)
    tokenizer = AutoTokenizer.from_pretrained(embedded_folder())
    torch.manual_seed(0)
    settings = configuration(tokenizer)
    state = Qwen2_5_VLForConditionalGeneration(settings).state_dict()
    state["model.language_model.embed_tokens.weight"] *= 15  # else no state of this width could prefer a word
    save_quantised({name: tensor for name, tensor in state.items() if name != "lm_head.weight"}, base)
    tokenizer.save_pretrained(base)
    settings.save_pretrained(base)
    return data, packed, base


def start_run(collection: tuple[Path, Path, Path], **changes: Any) -> tuple[Run, torch.Tensor, torch.Tensor]:
    data, packed, base = collection
    config = EmbeddedGrpoConfig(**{"rewards": {"paper_soft": 1}, "questions": 2, "micro_batch": 1, **changes})
    samples = embedded_grpo.read_samples(data)
    pictures = open_pictures(packed, samples)
    tokenizer = AutoTokenizer.from_pretrained(base)
    feed = Feed(samples, training_entries(data), training_absent(data), tokenizer, config.supervised())
    run = Run(embedded_grpo.load_model(base, torch.device("cpu")), feed, config)
    return run, torch.from_numpy(pictures), torch.from_numpy(load_masks(packed))


def test_what_is_rewarded_is_said_more_often(
    collection: tuple[Path, Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    run, pictures, masks = start_run(
        collection, group=8, answer=12, learning_rate=3e-2, warmup=1, kl_weight=0.0, rank=8, steps=40
    )

    def share_of_vowels(*given: Any) -> dict[str, list[Any]]:
        texts: list[str] = given[-1]
        found = [sum(c in "aeiou" for c in text[7:]) / max(1, len(text[7:])) for text in texts]
        return {"paper_soft": found, "iou": [None] * len(texts)}

    monkeypatch.setattr(run, "_scores", share_of_vowels)
    rewards = [run.train_step(pictures, masks)["reward"] for _ in range(25)]
    assert sum(rewards[-5:]) > 1.3 * sum(rewards[:5]), rewards


def test_rewards_reach_the_answers_they_belong_to(collection: tuple[Path, Path, Path]) -> None:
    run, *_ = start_run(collection, rewards={"paper_soft": 1, "absent": 2}, group=2, absent_share=0.5)

    batch = run.feed.batch(random.Random(1))
    batch.there[:] = torch.tensor([True, False])
    shape = torch.zeros(2, 336, 336)
    shape[0, 100:200, 50:250] = 1
    exact = (
        '<think>This is it.</think><answer>{"bbox": [50, 100, 250, 200], "points_1": [100, 150], '
        '"points_2": [200, 150]}</answer>'
    )
    none = '<think>No.</think><answer>{"absent": true}</answer>'
    scores = run._scores(batch, torch.zeros(2, 3, 336, 336), shape, [exact, none, exact, none])
    assert scores["absent"] == [0, 0, 0, 1]
    assert scores["iou"] == [1.0, 0.0, None, None]
    assert scores["paper_soft"][0] > 3
    assert scores["paper_soft"][1:] == [2, 2, 2]  # readable, with reasoning


def test_a_collection_without_anything_absent_says_so(collection: tuple[Path, Path, Path]) -> None:
    run, pictures, masks = start_run(collection, group=2, answer=4, absent_share=1.0)
    run.feed.absent_questions = []  # of one target on one kind of image: no other picture to ask for it on
    with pytest.raises(MedReasonerError, match="nothing can be asked for that is absent"):
        run.train_step(pictures, masks)


def test_listed_questions_that_no_picture_here_is_fit_for_are_left_out(collection: tuple[Path, Path, Path]) -> None:
    data, _, base = collection
    samples = [{**row, "source": "a hospital", "modality": "CT"} for row in embedded_grpo.read_samples(data)]
    tokenizer = AutoTokenizer.from_pretrained(base)
    feed = Feed(samples, training_entries(data), training_absent(data), tokenizer, SftConfig(absent_share=1.0))
    assert set(feed.rows_by_kind) == {"CT image"}  # of which nobody knows the part of the body
    with pytest.raises(MedReasonerError, match="nothing can be asked for that is absent"):
        feed.batch(random.Random(0))


def test_targets_are_drawn_from_the_named_splits_by_their_weight(collection: tuple[Path, Path, Path]) -> None:
    data, _, base = collection
    samples = [{**row, "split": ("train", "val", "test")[n % 3]} for n, row in enumerate(read_samples(data) * 9)]
    tokenizer = AutoTokenizer.from_pretrained(base)
    config = SftConfig(absent_share=0, splits={"train": 1, "val": 3})
    feed, rng = Feed(samples, training_entries(data), training_absent(data), tokenizer, config), random.Random(0)
    drawn = [samples[row]["split"] for _ in range(20) for row in feed.batch(rng).sample.tolist()]
    assert drawn.count("test") == 0
    targets = Counter(samples[row]["split"] for row in feed.rows)
    expected = 3 * targets["val"] / (3 * targets["val"] + targets["train"])
    assert drawn.count("val") / len(drawn) == pytest.approx(expected, abs=0.04)


def test_no_split_that_is_learnt_from_is_evaluated(collection: tuple[Path, Path, Path], tmp_path: Path) -> None:
    fresh = Path(embedded_grpo.__file__).parent / "configs" / "embedded_grpo_fresh.yaml"
    with pytest.raises(SystemExit):
        command(collection, tmp_path / "run", fresh, "--evaluate", "val", "--dry-run")
    command(collection, tmp_path / "run", fresh, "--evaluate", "test", "--dry-run")


def command(collection: tuple[Path, Path, Path], out: Path, config: Path, *more: object) -> None:
    data, packed, base = collection
    embedded_grpo.main(
        [str(a) for a in (config, "--data", data, "--packed", packed, "--base", base, "--out", out, *more)]
    )


def test_a_run_goes_on_as_if_never_cut_off_and_evaluates(collection: tuple[Path, Path, Path], tmp_path: Path) -> None:
    text = (
        "rewards: {paper_soft: 1}\nsupervised_weight: 1\nquestions: 2\nmicro_batch: 2\ngroup: 2\nanswer: 128\n"
        "validate_every: 2\nwarmup: 1\n"
    )
    whole, half = tmp_path / "whole.yaml", tmp_path / "half.yaml"
    whole.write_text(text + "steps: 2\n")
    half.write_text(text + "steps: 2\n")
    command(collection, tmp_path / "a", whole, "--evaluate", "test")
    command(collection, tmp_path / "b", half, "--limit", "1e-9")  # no step fits: an untouched start
    assert not (tmp_path / "b" / "log.jsonl").exists()
    command(collection, tmp_path / "b", half)
    states = [torch.load(tmp_path / run / "state.pt", weights_only=True) for run in "ab"]
    assert states[0]["step"] == states[1]["step"] == 2
    for one, other in zip(states[0]["adapters"], states[1]["adapters"], strict=True):
        assert torch.equal(one, other)
    assert {p.name for p in (tmp_path / "a" / "adapter").iterdir()} >= {CONFIG, WEIGHTS}
    log = [json.loads(line) for line in (tmp_path / "a" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2]
    assert 0 <= log[1]["eval_rewards/iou/mean"] <= 1
    assert {"reward", "kl", "supervised", "rewards/paper_soft/mean", "completions/mean_length"} <= log[0].keys()
    answered = json.loads((tmp_path / "a" / "test.json").read_text())
    assert {case["absent"] for case in answered} == {True, False}
    assert (tmp_path / "a" / "summary.png").stat().st_size > 5000


def test_a_run_starts_from_the_rows_and_not_from_the_adapter_beside_them(
    collection: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    data, packed, rows = collection
    config = tmp_path / "none.yaml"
    config.write_text(
        "rewards: {paper_soft: 1}\nquestions: 1\nmicro_batch: 1\ngroup: 2\nanswer: 8\nvalidate_every: 0\n"
    )
    both = Path(shutil.copytree(rows, tmp_path / "both"))
    run, *_ = start_run(collection)
    stirred(run.policy).save(both)
    alone, merged = load_quantised(rows), load_quantised(both)
    assert not all(torch.equal(alone[name], merged[name]) for name in alone)

    def answers(base: Path, out: str, *more: object) -> list[str]:
        untrained = ("--limit", "1e-9", "--evaluate", "test", *more)
        command((data, packed, base), tmp_path / out, config, *untrained)
        return [case["text"] for case in json.loads((tmp_path / out / "test.json").read_text())]

    assert answers(rows, "a") == answers(both, "b") != answers(both, "c", "--adapter", both)


def test_a_run_that_is_killed_goes_on_from_its_last_saved_step(
    collection: tuple[Path, Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "short.yaml"
    config.write_text(
        "rewards: {paper_soft: 1}\nquestions: 1\nmicro_batch: 1\ngroup: 2\nanswer: 8\nsteps: 5\nsave_every: 2\n"
        "validate_every: 0\nwarmup: 1\n"
    )
    step = Run.train_step

    def killed(run: Run, pictures: torch.Tensor, masks: torch.Tensor) -> dict[str, float]:
        if run.step == 3:
            raise RuntimeError("killed")
        return step(run, pictures, masks)

    monkeypatch.setattr(Run, "train_step", killed)
    with pytest.raises(RuntimeError, match="killed"):
        command(collection, tmp_path / "cut", config)
    monkeypatch.setattr(Run, "train_step", step)
    assert torch.load(tmp_path / "cut" / "state.pt", weights_only=True)["step"] == 2
    command(collection, tmp_path / "cut", config)
    command(collection, tmp_path / "whole", config)
    cut, whole = (torch.load(tmp_path / run / "state.pt", weights_only=True) for run in ("cut", "whole"))
    assert all(torch.equal(one, other) for one, other in zip(cut["adapters"], whole["adapters"], strict=True))
    log = [json.loads(line) for line in (tmp_path / "cut" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in log] == [1, 2, 3, 4, 5]


WRONG = {
    "an unknown reward": ({"rewards": {"praise": 1}}, "no such rewards"),
    "a reward of length, which no answer here can lose": ({"rewards": {"brevity": 1}}, "no such rewards"),
    "nothing to learn from": ({}, "nothing is rewarded or taught"),
    "a group of one, whose deviation is not a number": ({"rewards": {"absent": 1}, "group": 1}, "group of one"),
    "batches that do not divide": ({"rewards": {"absent": 1}, "questions": 3, "micro_batch": 2}, "do not divide"),
    "the test split": ({"rewards": {"absent": 1}, "splits": {"train": 1, "test": 1}}, "nothing is learnt from"),
    "no split": ({"rewards": {"absent": 1}, "splits": {}}, "nothing is learnt from"),
    "validation of what is learnt": ({"rewards": {"absent": 1}, "splits": {"val": 1}}, "cannot validate"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_configuration_that_cannot_be_run_is_refused(name: str) -> None:
    settings, message = WRONG[name]
    with pytest.raises(MedReasonerError, match=message):
        EmbeddedGrpoConfig(**settings)


def test_batched_mask_scores_are_those_of_the_product() -> None:
    """On the canvas of the network, where both see the same pixels; the expert is the real one."""
    generator = torch.Generator().manual_seed(2)
    rows, columns = torch.meshgrid(torch.arange(256), torch.arange(256), indexing="ij")
    disc = ((rows - 120) ** 2 + (columns - 140) ** 2 < 50**2).float()
    pixels = ((0.2 + 0.6 * disc[None] + 0.05 * torch.rand(3, 256, 256, generator=generator)) * 255).round().byte()
    pictures = torch.stack([pixels, pixels]).float() / 255
    masks = torch.stack([disc, torch.zeros_like(disc)])  # the second question's target is absent
    answers: list[Answer | None] = [
        GroundingAnswer(Box(90, 70, 190, 170), (Point(120, 120), Point(160, 120)), "x"),
        GroundingAnswer(Box(100, 80, 170, 150), (Point(120, 110), Point(150, 120)), "x"),
        AbsentAnswer("x"),
        None,
        GroundingAnswer(Box(90, 70, 190, 170), (Point(120, 120), Point(160, 120)), "x"),
        None,
    ]
    found = MaskScores(torch.device("cpu")).dice(pictures, masks, answers)
    assert len(found) == 6
    texts = [
        f'<think>x</think><answer>{{"bbox": {[int(v) for v in a.box.as_list()]}, "points_1": '
        f'{[int(a.points[0].x), int(a.points[0].y)]}, "points_2": {[int(a.points[1].x), int(a.points[1].y)]}}}</answer>'
        for a in answers[:2]
        if isinstance(a, GroundingAnswer)
    ]
    picture = Picture(pixels.permute(1, 2, 0).numpy())
    expected = mask_dice(texts, [picture] * 2, [disc.numpy()] * 2, masks_from(load_expert()))
    assert found[:2] == pytest.approx(expected, abs=0.02)
    assert expected[0] > 0.9
    assert found[2:] == [0, 0, 0, 0]
