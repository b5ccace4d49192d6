"""Every configuration that ships is read and planned; the plan's figures are checked by hand arithmetic."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file
from transformers import Qwen2_5_VLConfig

import benchmarks
from benchmarks.grpo_parts import configured, even
from benchmarks.grpo_step import Step
from medreasoner.contract.errors import MedReasonerError
from rl_training import embedded_grpo, finetune, grpo
from rl_training.config import FinetuneConfig, GrpoConfig, Lora, Stage
from rl_training.plan import GIB, memory, updates
from rl_training.rewards import REWARDS, paper_hard, paper_soft
from rl_training.shapes import Shape, configuration, shape_of
from rl_training.stage import deepspeed_settings
from tests.collection import make_collection

CONFIGS = Path(str(files("rl_training"))) / "configs"
RESULTS = Path(str(files(benchmarks))) / "results"
STAGES = {
    "smoke_sft": FinetuneConfig,
    "smoke": GrpoConfig,
    "embedded_trl": GrpoConfig,
    "lingshu_7b_sft": FinetuneConfig,
    "lingshu_7b_soft": GrpoConfig,
    "lingshu_7b_hard": GrpoConfig,
    "lingshu_7b_base": GrpoConfig,
    "qwen2_5_vl_3b_lora": GrpoConfig,
}
EMBEDDED = (
    "embedded_grpo",
    "embedded_grpo_fresh",
    "embedded_grpo_hard",
    "embedded_grpo_mask",
    "embedded_more_sft",
    "embedded_more_sft_fresh",
)


def read(name: str) -> Stage:
    kind = STAGES[name]
    assert issubclass(kind, (FinetuneConfig, GrpoConfig))
    return kind.from_yaml(CONFIGS / f"{name}.yaml")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_collection(tmp_path_factory.mktemp("configs") / "data")


@pytest.fixture(scope="module")
def seven() -> Shape:
    return shape_of(configuration("7b"))


def test_all_configurations_are_covered() -> None:
    others = {"embedded_sft", "expert", "local"}  # read by commands of their own
    assert {p.stem for p in CONFIGS.glob("*.yaml")} - others - set(EMBEDDED) == set(STAGES)


@pytest.mark.parametrize("name", EMBEDDED)
def test_grpo_of_the_embedded_reasoner_prints_its_configuration_and_stops(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIGS / f"{name}.yaml"
    embedded_grpo.main([str(config), "--data", "none", "--packed", "none", "--out", "none", "--dry-run"])
    shown = capsys.readouterr().out
    values = yaml.safe_load(config.read_text())
    assert all(f"{key}=" in shown for key in values)
    assert all(f"'{reward}'" in shown for reward in values.get("rewards", {}))


@pytest.mark.parametrize("name", [n for n in STAGES if not n.startswith("smoke")])
def test_a_dry_run_plans_and_stops(
    name: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDREASONER_MODELS", str(tmp_path))  # so that no downloaded folder is found
    command = grpo if STAGES[name] is GrpoConfig else finetune
    given = [str(CONFIGS / f"{name}.yaml"), "--data", str(data), "--output", str(tmp_path / "run"), "--dry-run"]
    command.main(given)
    said = capsys.readouterr().out
    assert "learning_rate" in said
    assert "attention" in said
    assert ": fits" in said
    assert not (tmp_path / "run").exists()


def test_a_folder_that_is_missing_stops_a_real_run(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEDREASONER_MODELS", str(tmp_path))
    given = [str(CONFIGS / "qwen2_5_vl_3b_lora.yaml"), "--data", str(data), "--output", str(tmp_path / "run")]
    with pytest.raises(SystemExit):
        grpo.main(given)
    assert "no checkpoint called 'Qwen2.5-VL-3B-Instruct'" in capsys.readouterr().err


def test_the_papers_figures() -> None:
    """facts of https://arxiv.org/abs/2508.08177 and its scripts: 64 GPUs, batch 128, mini-batch 64, group 16."""
    soft = read("lingshu_7b_soft")
    assert isinstance(soft, GrpoConfig)
    assert (soft.group, soft.questions_per_generation, soft.questions_per_update) == (16, 128, 64)
    assert (soft.learning_rate, soft.kl_weight, soft.clip, soft.epochs) == (1e-6, 0.01, 0.2, 5)
    assert (soft.max_prompt, soft.max_completion, soft.gpus) == (2048, 2048, 64)
    assert soft.accumulation(64) == 16
    # 11.5 K questions: 89 whole batches of 128 an epoch, 2 updates each, 5 epochs
    assert updates(soft, 11_500) == 5 * 89 * 2
    taught = read("lingshu_7b_sft")
    assert (taught.learning_rate, taught.schedule, taught.warmup, taught.epochs) == (5e-6, "cosine", 0.1, 5)
    assert (taught.micro_batch, taught.accumulation(8)) == (2, 8)


def test_the_parts_add_up_to_the_papers_modes() -> None:
    """Logged one by one, together they are `paper_soft` and `paper_hard`."""
    text = '<think>a</think><answer>{"bbox": [1, 2, 30, 40], "points_1": [9, 9], "points_2": [20, 30]}</answer>'
    truth = {"box": [[3, 3, 35, 35]], "points": [[[8, 9], [22, 25]]]}
    for name, whole in (("soft", paper_soft), ("hard", paper_hard)):
        config = read(f"lingshu_7b_{name}")
        assert isinstance(config, GrpoConfig)
        parts = sum(weight * REWARDS[part]([text], **truth)[0] for part, weight in config.rewards.items())
        assert parts == pytest.approx(whole([text], **truth)[0])


@pytest.mark.parametrize(("name", "billions"), [("3b", 3.75), ("7b", 8.29), ("embedded", 0.142)])
def test_shapes_have_the_published_sizes(name: str, billions: float) -> None:
    """Qwen's model pages: 3.75 B and 8.29 B parameters; our model card: 142 M."""
    assert shape_of(configuration(name)).parameters / 1e9 == pytest.approx(billions, rel=0.01)


def test_memory_of_a_full_step(seven: Shape) -> None:
    """ZeRO-3 on 64 GPUs: 16 bytes a parameter spread over them, 2 more for the reference, vLLM's share of 80."""
    needed = memory(read("lingshu_7b_soft"), seven, 1172, 64)
    spread = needed.weights + needed.gradients + needed.optimizer
    assert spread == pytest.approx(16 * seven.parameters / 64 / GIB)
    assert needed.reference == pytest.approx(2 * seven.parameters / 64 / GIB)
    assert needed.rollouts == pytest.approx(0.35 * 80)


def test_whole_weights_are_gathered_for_rollouts_by_transformers(seven: Shape) -> None:
    config = GrpoConfig(reasoner="r", deepspeed="zero3", group=4, questions_per_generation=4, questions_per_update=4)
    spread = memory(config, seven, 1000, 4).rollouts
    whole = memory(replace(config, deepspeed="zero2"), seven, 1000, 4).rollouts
    assert spread - whole == pytest.approx(2 * seven.parameters / GIB)  # on every GPU, in bf16


def test_memory_of_adapters(seven: Shape) -> None:
    """Rank r on a layer (out, in) costs r (out + in); Qwen2.5-VL-7B's text layers by its config.json."""
    hidden, heads, inner = 3584, 512, 18944
    by_hand = 28 * 64 * (2 * (hidden + hidden) + 2 * (heads + hidden) + 3 * (inner + hidden))
    assert seven.adapter_parameters(64, Lora().layers) == by_hand
    needed = memory(GrpoConfig("x", lora=Lora()), seven, 1172, 1)
    assert needed.optimizer == pytest.approx(12 * by_hand / GIB)
    assert needed.reference == 0  # the base under the adapters is the reference


MEASURED = {  # on H200s (benchmarks/results); part -> changes to our settings, as benchmarks.grpo_parts makes them
    "ours": {},
    "trl_defaults": {"kl_weight": 0.0, "micro_batch": 1, "recompute": True},
}


@pytest.mark.parametrize("part", MEASURED)
@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("grpo_step_7b_lora", Step("7b", lora=64, group=4)),
        ("grpo_step_7b_zero3", Step("7b", layers=8, deepspeed="zero3", processes=2, group=4, recompute=True)),
        ("grpo_step_7b_zero3_whole", Step("7b", deepspeed="zero3", processes=2, group=4, recompute=True)),
    ],
)
def test_memory_is_what_was_measured(name: str, step: Step, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    monkeypatch.setenv("WORLD_SIZE", str(step.processes))
    monkeypatch.setitem(REWARDS, even.__name__, even)  # `configured` adds it for good
    text = {"num_hidden_layers": step.layers, "layer_types": None} if step.layers else {}
    told = configuration("7b").to_dict()
    shape = shape_of(Qwen2_5_VLConfig.from_dict({**told, "text_config": {**told["text_config"], **text}}))
    planned = memory(replace(configured(step), **MEASURED[part]), shape, 948, step.processes).total
    assert planned == pytest.approx(found[part]["peak_gib"], rel=0.05)


@pytest.mark.parametrize("path", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=lambda p: p.stem)
def test_accelerate_reads_its_files(path: Path) -> None:
    launch = load_config_from_file(str(path))
    assert launch.num_processes in (8, 64)
    assert not launch.deepspeed_config, "ZeRO is chosen in the stage's configuration alone"


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_deepspeed_files_leave_the_batch_to_the_stage(name: str) -> None:
    settings = deepspeed_settings(name)
    assert settings["zero_optimization"]["stage"] == int(name[-1])
    assert settings["train_batch_size"] == settings["gradient_clipping"] == "auto"


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"learning_rate": "quick"}, "learning_rate"),
        ({"lora": {"rnak": 4}}, "lora.rnak"),
        ({"grup": 4}, "grup"),
        ({"group": 1}, "group of one"),
        ({"rewards": {"luck": 1}}, "luck"),
        ({"rewards": {}}, "nothing is rewarded"),
        ({"questions_per_generation": 3, "questions_per_update": 2}, "no multiple"),
        ({"save_every": 3}, "save_every 3"),  # two updates a generation
        ({"deepspeed": "zero9"}, "deepspeed"),
        ({"deepspeed": "zero3", "lora": {"rank": 4}}, "adapters under zero3"),
    ],
)
def test_mistakes_are_named(changes: dict[str, object], named: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(yaml.safe_dump({"reasoner": "x", **changes}))
    with pytest.raises(MedReasonerError, match=named):
        GrpoConfig.from_yaml(path)


def test_a_batch_that_does_not_divide_is_refused() -> None:
    with pytest.raises(MedReasonerError, match="do not divide"):
        GrpoConfig("x", micro_batch=3).accumulation(64)
