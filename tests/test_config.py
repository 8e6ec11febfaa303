"""Recipes: what is read, what is refused and how it is said, and that what is written reads back equal."""

from __future__ import annotations

import dataclasses
import importlib.util
import string
import sys
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agentrl.config import check_recipe, dump_recipe, load_recipe, read_recipe, resume_recipe
from agentrl.config.overrides import apply_overrides, parse_override
from agentrl.engine.settings import EngineSettings, OpenAISettings, ServerSettings, VllmSettings
from agentrl.errors import ConfigError, UserError
from agentrl.learner.settings import LearnerSettings, OptimizerSettings, PolicySettings, TinySettings
from agentrl.objective.loading import load_spec
from agentrl.objective.spec import SLOTS
from agentrl.rollout.settings import RetrySettings, RolloutSettings
from agentrl.train.recipe import (
    EnvSettings,
    EvaluationSettings,
    LaunchSettings,
    ObjectiveSettings,
    Recipe,
    SyncSettings,
    TrainSettings,
    WarmupSettings,
)

SMALLEST = 'name = "mine"\n\n[env]\nid = "calculator"\n'


@pytest.fixture
def recipe_file(tmp_path: Path) -> Path:
    path = tmp_path / "mine.toml"
    path.write_text(SMALLEST)
    return path


def refusal(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as caught:
        load_recipe(path, overrides)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=3", 3),
        ("a.b=3.5", 3.5),
        ("a.b = true ", True),
        ("a.b=[1, 2]", [1, 2]),
        ('a.b={name = "clip", high = 0.28}', {"name": "clip", "high": 0.28}),
        ('a.b="3"', "3"),
        ("a.b=rloo", "rloo"),
        ("a.b=runs/x=1", "runs/x=1"),
        ("a.b=", ""),
        ("a.b=1\nc=2", "1\nc=2"),
    ],
)
def test_override_values_are_toml_or_else_text(text: str, value: Any) -> None:
    override = parse_override(text)
    assert override.path == ("a", "b")
    assert override.value == value
    assert type(override.value) is type(value)


@pytest.mark.parametrize("text", ["objective.preset", "=3", "a..b=3", ".a=3", "a=[1, 2", "a={name=clip}", 'a="x'])
def test_override_that_does_not_read_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--set") as caught:
        parse_override(text)
    assert text in str(caught.value)


def test_overrides_apply_in_order_and_leave_the_tree_alone() -> None:
    tree = {"a": {"b": 1, "c": 2}}
    changed = apply_overrides(tree, [parse_override(t) for t in ("a.b=5", "a.b=6", "d.e.f=7")])
    assert changed == {"a": {"b": 6, "c": 2}, "d": {"e": {"f": 7}}}
    assert tree == {"a": {"b": 1, "c": 2}}


def test_override_inside_a_value_is_refused(recipe_file: Path) -> None:
    message = refusal(recipe_file, "name.first=x")
    assert "--set name.first" in message
    assert "not a table" in message


def test_smallest_recipe_has_the_defaults(recipe_file: Path) -> None:
    assert load_recipe(recipe_file) == Recipe(name="mine", env=EnvSettings(id="calculator"))


def test_file_and_overrides_reach_the_recipe(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(SMALLEST + "[learner.optimizer]\nlr = 1\nbetas = [0.8, 0.9]\n[rollout]\ngroup_size = 4\n")
    recipe = load_recipe(path, ["rollout.group_size=6", "objective.preset=rloo", "seed=7", "rollout.max_turns=2"])
    assert recipe.learner.optimizer.lr == 1.0
    assert recipe.learner.optimizer.betas == (0.8, 0.9)
    assert (recipe.rollout.group_size, recipe.rollout.max_turns) == (6, 2)
    assert (recipe.objective.preset, recipe.seed) == ("rloo", 7)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("enigne.kind=vllm", "did you mean 'engine'?"),
        ("engine.knid=vllm", "did you mean 'engine.kind'?"),
        ("group_size=4", "did you mean 'rollout.group_size'?"),
        ("lr=0.1", "'learner.optimizer.lr'"),
        ("learner.optimizer.zzz=1", "known in [learner.optimizer]: lr, betas"),
        ("objective.preest=rloo", "did you mean 'objective.preset'?"),
        ("objective.overrides.gate=1", "known in [objective]: preset,"),
        ("engine.vllm.kv_cache=1", "did you mean 'engine.vllm.kv_cache_gib'?"),
    ],
)
def test_unknown_setting_names_its_full_path_and_the_nearest(recipe_file: Path, override: str, said: str) -> None:
    message = refusal(recipe_file, override)
    assert said in message
    assert message.startswith(f"--set {override.partition('=')[0]}: there is no setting")


def test_unknown_setting_in_the_file_names_the_file(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(SMALLEST + "[rollout]\ngruop_size = 4\n")
    assert refusal(path) == f"{path}: there is no setting 'rollout.gruop_size'; did you mean 'rollout.group_size'?"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rollout.group_size=4.5", "rollout.group_size is 4.5, wanted an integer"),
        ("rollout.group_size=true", "rollout.group_size is True, wanted an integer"),
        ('rollout.group_size="4"', "rollout.group_size is '4', wanted an integer"),
        ("rollout.temperature=hot", "rollout.temperature is 'hot', wanted a number"),
        ("learner.optimizer.lr=nan", "learner.optimizer.lr is nan, wanted a number"),
        ("learner.optimizer.lr=inf", "learner.optimizer.lr is inf, wanted a number"),
        ("learner.optimizer.betas=[0.9]", "wanted a list of 2: a number, a number"),
        ("learner.optimizer.schedule=linaer", "is 'linaer', wanted one of 'constant', 'linear', 'cosine'"),
        ("engine.vllm.enforce_eager=yes", "is 'yes', wanted true or false"),
        ("rollout.max_turns=few", "is 'few', wanted an integer"),
        ("name=3", "name is 3, wanted a text"),
        ("engine=vllm", "engine is 'vllm', wanted a table of settings"),
        ("objective=rloo", "objective is 'rloo', wanted a table of settings"),
        ("env.settings=hard", "env.settings is 'hard', wanted a table"),
    ],
)
def test_value_of_the_wrong_type_says_what_was_wanted(recipe_file: Path, override: str, said: str) -> None:
    message = refusal(recipe_file, override)
    assert said in message
    assert message.startswith("--set ")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('name = "x"\n', "'env' is missing; add it: a [env] table"),
        ('name = "x"\n[env]\n', "'env.id' is missing; add it: a text"),
        ('name = "x"\n[env\n', "is not valid TOML: "),
    ],
)
def test_broken_file_is_named(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "r.toml"
    path.write_text(content)
    message = refusal(path)
    assert message.startswith(str(path))
    assert said in message


def test_toml_error_names_the_line(tmp_path: Path) -> None:
    path = tmp_path / "r.toml"
    path.write_text(SMALLEST + "level = = 3\n")
    assert "line 5" in refusal(path)


def test_missing_or_binary_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "b.toml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refusal(tmp_path / "none.toml")
    assert "cannot be read" in refusal(tmp_path)
    assert "not a text file" in refusal(tmp_path / "b.toml")


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("rollout.groups_per_step=0", "rollout.groups_per_step is 0, wanted more than 0"),
        ("rollout.max_turns=0", "rollout.max_turns is 0, wanted more than 0"),
        ("train.steps=-1", "train.steps is -1, wanted 0 or more"),
        ("seed=-1", "seed is -1, wanted 0 or more"),
        ("rollout.temperature=0", "rollout.temperature is 0.0, wanted more than 0"),
        ("rollout.max_failed_share=1.5", "rollout.max_failed_share is 1.5, wanted at most 1"),
        ("learner.optimizer.betas=[0.9, 1.0]", "learner.optimizer.betas has 1.0, wanted less than 1"),
        ("engine.kind=vlm", "there is no engine 'vlm'; did you mean 'vllm'?"),
        ("engine.kind=scripted:oracle", "has no weights to train"),
        ("engine.vllm.kv_cache_gib=2", "engine.vllm.kv_cache_gib is set, but engine.kind is 'hf'"),
        ("engine.kind=openai", "serves evaluation only: such an endpoint gives text, not the token ids"),
        ("engine.server.count=2", "engine.server.count is set, but engine.kind is 'hf'"),
        ("engine.server.urls=3", "wanted a list, each of it a text"),
        ("engine.openai.retries=1", "engine.openai.retries is set, but engine.kind is 'hf'"),
        ("engine.max_context=512", "set engine.max_context = 1024"),
        ("policy.parser=herms", "did you mean 'hermes'?"),
        ("policy.parser=hermes:run", "only python_block takes a tool"),
        ("policy.path=./nowhere", "there is no model folder './nowhere'"),
        ("policy.path=a/b/c", "there is no model folder 'a/b/c'"),
        ("policy.tiny.kv_heads=4", "wanted a multiple of kv_heads (4)"),
        ("launch.device=gpu", "launch.device is 'gpu', wanted 'auto', 'cpu', 'cuda' or 'cuda:N'"),
        ("launch.dtype=fp16", "wanted one of 'auto', 'float32', 'bfloat16'"),
        ("objective.preset=grop", "did you mean 'grpo'?"),
        ("objective.preset=nowhere.toml", "the objective preset 'nowhere.toml' cannot be read"),
        ("objective.preset=grpo_opd", "set learner.teacher to a checkpoint"),
        ("learner.teacher=calculator", "nothing in it reads a teacher"),
        ("learner.value_lr=0.2", "has no critic and would ignore it"),
        ("rollout.group_size=1", "group"),
        ("env.id=calculater", "did you mean 'calculator'?"),
        ("env.settings.dificulty=easy", "difficulty"),
        ("env.settings.difficulty=impossible", "'easy', 'medium' or 'hard'"),
    ],
)
def test_recipe_that_cannot_run_is_refused(recipe_file: Path, override: str, said: str) -> None:
    assert said in refusal(recipe_file, override)


def test_what_may_be_zero_may_be_zero(recipe_file: Path) -> None:
    zeros = ["train.steps=0", "policy.tiny.merges=0", "warmup.optimizer.betas=[0, 0]", "rollout.max_failed_share=0"]
    assert load_recipe(recipe_file, zeros).train.steps == 0


def test_vllm_must_be_installed(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    message = refusal(recipe_file, "engine.kind=vllm")
    assert "pip install 'agentrl[train,vllm]'" in message


def test_vllm_settings_are_taken_where_they_are_honoured(recipe_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    recipe = load_recipe(recipe_file, ["engine.kind=vllm", "engine.vllm.kv_cache_gib=2"])
    assert recipe.engine.vllm.kv_cache_gib == 2.0


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (['urls=["gpu7:8000"]'], "holds 'gpu7:8000', wanted addresses such as 'http://gpu7:8000'"),
        (['urls=["http://gpu7:8000"]'], "may be another machine: set engine.server.weights_folder"),
        (
            ['urls=["http://localhost:1"]', "count=2"],
            "engine.server.count is set, but engine.server.urls names",
        ),
        (['urls=["http://localhost:1"]', "python=python3"], "engine.server.python is set, but engine.server.urls"),
        (['urls=["http://localhost:1"]', "api_key_env=NO_KEY"], "'NO_KEY', and no such variable is set"),
        (["api_key_env=NO_KEY"], "agentrl starts the servers itself: remove it"),
        (["weights_folder=/no/where"], "weights_folder '/no/where' is no folder"),
        (["count=2", 'gpus=["0"]'], "names GPUs for 1 servers, and engine.server.count is 2"),
        (["python=/no/python"], "engine.server.python '/no/python' cannot be run"),
        (["count=0"], "engine.server.count is 0, wanted more than 0"),
        (["retries=-1"], "engine.server.retries is -1, wanted 0 or more"),
    ],
)
def test_servers_are_refused_what_they_cannot_honour(recipe_file: Path, overrides: list[str], said: str) -> None:
    assert said in refusal(recipe_file, "engine.kind=vllm-server", *(f"engine.server.{text}" for text in overrides))


def test_of_servers_that_run_already_vllms_own_settings_are_refused(recipe_file: Path) -> None:
    urls = ["engine.kind=vllm-server", 'engine.server.urls=["http://localhost:1"]']
    assert "would ignore it" in refusal(recipe_file, *urls, "engine.vllm.kv_cache_gib=2")
    recipe = load_recipe(recipe_file, [*urls, "engine.vllm.sync_deadline_s=9", "engine.server.retries=0"])
    assert recipe.engine.server.urls == ("http://localhost:1",)
    assert recipe.engine.vllm.sync_deadline_s == 9.0


def test_a_server_of_another_environment_needs_no_vllm_in_this_one(
    recipe_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "vllm" else object())
    assert "needs vLLM" in refusal(recipe_file, "engine.kind=vllm-server")
    recipe = load_recipe(
        recipe_file,
        ["engine.kind=vllm-server", f"engine.server.python={sys.executable}", "engine.vllm.kv_cache_gib=2"],
    )
    assert recipe.engine.vllm.kv_cache_gib == 2.0
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    missing = refusal(recipe_file, "engine.kind=vllm-server", f"engine.server.python={sys.executable}")
    assert "pip install 'agentrl[server]'" in missing


def test_policy_folders(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "mine").mkdir(parents=True)
    assert "no config.json" in refusal(recipe_file, "policy.path=models/mine")
    assert "there is no model folder" in refusal(recipe_file, "policy.path=models/other")
    assert load_recipe(recipe_file, ["policy.path=owner/model"]).policy.path == "owner/model"
    (tmp_path / "models" / "mine" / "config.json").write_text("{}")
    assert load_recipe(recipe_file, ["policy.path=models/mine"]).policy.path == "models/mine"
    ignored = refusal(recipe_file, "policy.path=models/mine", "policy.tiny.layers=2")
    assert "policy.tiny.layers is set, but policy.path is 'models/mine'" in ignored


counts = st.integers(1, 10**9)
shares = st.floats(0, 1, allow_nan=False)
numbers = st.floats(1e-12, 1e12)
texts = st.text(st.characters(codec="utf-8"), max_size=12)
keys = st.text(string.ascii_letters + string.digits + "_-. é", min_size=1, max_size=8)
toml_values = st.recursive(
    st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), texts),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(keys, inner, max_size=3)),
    max_leaves=8,
)


def builds(cls: type, **fields: Any) -> st.SearchStrategy[Any]:
    """Instances of a settings class: the given fields, and each other one drawn by its type."""
    lists = st.lists(texts, max_size=2).map(tuple)
    by_type = {"int": counts, "float": numbers, "str": texts, "bool": st.booleans(), "tuple[str, ...]": lists}
    drawn = {f.name: by_type[str(f.type)] for f in dataclasses.fields(cls) if f.name not in fields}
    return st.builds(cls, **drawn, **fields)


optimizers = builds(
    OptimizerSettings, betas=st.tuples(shares, shares), schedule=st.sampled_from(["constant", "linear", "cosine"])
)
recipes = builds(
    Recipe,
    env=builds(EnvSettings, settings=st.dictionaries(keys, toml_values, max_size=3)),
    policy=builds(PolicySettings, tiny=builds(TinySettings)),
    engine=builds(
        EngineSettings, vllm=builds(VllmSettings), server=builds(ServerSettings), openai=builds(OpenAISettings)
    ),
    warmup=builds(WarmupSettings, optimizer=optimizers),
    rollout=builds(
        RolloutSettings,
        max_turns=st.none() | counts,
        history=st.sampled_from(["template", "append"]),
        retry=builds(RetrySettings),
    ),
    objective=builds(
        ObjectiveSettings, overrides=st.dictionaries(st.sampled_from(sorted(SLOTS)), toml_values, max_size=3)
    ),
    learner=builds(LearnerSettings, optimizer=optimizers),
    sync=builds(SyncSettings, tolerance=st.none() | numbers),
    evaluation=builds(EvaluationSettings),
    train=builds(TrainSettings, stale=st.sampled_from(["drop", "keep"])),
    launch=builds(LaunchSettings, dtype=st.sampled_from(["auto", "float32", "bfloat16"])),
)


def test_an_objective_of_ones_own_is_a_file(recipe_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = resources.files("agentrl.objective.presets").joinpath("grpo.toml").read_text(encoding="utf-8")
    Path("own.toml").write_text(shipped.replace('name = "grpo"', 'name = "mine"', 1))
    recipe = load_recipe(recipe_file, ["objective.preset=own.toml", "objective.critic=none", "objective.terms=[]"])
    spec = load_spec(recipe.objective.preset, recipe.objective.overrides)
    assert spec.name == "mine"
    assert dataclasses.replace(spec, name="grpo") == load_spec("grpo")


def test_a_teacher_that_is_read_must_be_a_model(recipe_file: Path, tmp_path: Path) -> None:
    message = refusal(recipe_file, "objective.preset=grpo_opd", "learner.teacher=./nowhere")
    assert message == ("learner.teacher: there is no model folder './nowhere'; give a checkpoint folder or a hub name")
    (tmp_path / "config.json").write_text("{}")
    load_recipe(recipe_file, ["objective.preset=grpo_opd", f"learner.teacher={tmp_path}"])


@settings(max_examples=60, deadline=None)
@given(recipe=recipes)
def test_written_recipe_reads_back_equal(tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    path = tmp_path_factory.mktemp("recipe") / "r.toml"
    path.write_text(dump_recipe(recipe), encoding="utf-8", newline="")
    assert read_recipe(path) == recipe


def test_written_recipe_holds_every_setting_and_slots_beside_the_preset(recipe_file: Path) -> None:
    recipe = load_recipe(recipe_file)
    check_recipe(recipe)
    tree = tomllib.loads(dump_recipe(recipe))
    assert set(tree) == {field.name for field in dataclasses.fields(Recipe)}
    assert tree["objective"] == {"preset": "grpo"}
    assert tree["rollout"]["group_size"] == 8
    assert "max_turns" not in tree["rollout"]


def saved_run(tmp_path: Path, *overrides: str) -> Path:
    """The `config.toml` of a run, as it is written when it begins."""
    begun = tmp_path / "begun.toml"
    begun.write_text(SMALLEST)
    saved = tmp_path / "config.toml"
    saved.write_text(dump_recipe(load_recipe(begun, overrides)))
    return saved


def test_what_a_run_ignored_takes_todays_default_when_it_goes_on(tmp_path: Path) -> None:
    """Defaults that have changed since: the file holds the old ones, and nobody has set them."""
    saved = saved_run(tmp_path, "engine.max_batch=9", "train.steps=3")
    old = {
        "kv_cache_gib = 1.0": "kv_cache_gib = 0.75",
        "health_every_s = 5.0": "health_every_s = 4.0",
        'max_tokens_field = "max_completion_tokens"': 'max_tokens_field = "max_tokens"',
        'stale = "drop"': 'stale = "keep"',
        "value_lr = 0.1": "value_lr = 0.2",
    }
    text = saved.read_text()
    for now, then in old.items():
        assert text.count(now) == 1
        text = text.replace(now, then)
    saved.write_text(text)
    recipe = resume_recipe(saved, ["train.steps=4"])
    assert (recipe.engine, recipe.learner.value_lr) == (EngineSettings(max_batch=9), LearnerSettings().value_lr)
    assert (recipe.train.steps, recipe.train.stale) == (4, "drop")


def test_what_a_run_honoured_stays_and_is_refused_where_it_would_be_ignored(tmp_path: Path) -> None:
    saved = saved_run(tmp_path, "engine.kind=vllm", "engine.vllm.kv_cache_gib=3", "objective.preset=ppo")
    assert resume_recipe(saved).engine.vllm.kv_cache_gib == 3
    with pytest.raises(ConfigError, match=r"engine.vllm.kv_cache_gib is set, but engine.kind is 'hf'"):
        resume_recipe(saved, ["engine.kind=hf"])
    with pytest.raises(ConfigError, match=r"engine.openai.retries is set"):
        resume_recipe(saved, ["engine.openai.retries=1"])


def test_of_servers_that_ran_already_defaults_of_started_ones_are_nobodys_choice(tmp_path: Path) -> None:
    saved = saved_run(tmp_path, "engine.kind=vllm-server", 'engine.server.urls=["http://localhost:1"]')
    saved.write_text(saved.read_text().replace("gpu_memory_utilization = 0.45", "gpu_memory_utilization = 0.4"))
    assert resume_recipe(saved).engine.vllm == VllmSettings()


def test_the_warm_up_can_be_changed_until_it_is_over(tmp_path: Path) -> None:
    saved = saved_run(tmp_path, "seed=0")
    assert resume_recipe(saved, ["warmup.steps=3"]).warmup.steps == 3
    (saved.parent / "checkpoints" / "step-00000").mkdir(parents=True)
    with pytest.raises(ConfigError, match=r"warmup.steps is 3, but the run that is gone on with was begun with 0"):
        resume_recipe(saved, ["warmup.steps=3"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("seed=1", "seed is 1, but the run that is gone on with was begun with 0"),
        ("out=elsewhere", "out is 'elsewhere'"),
        ("policy.tiny.hidden=96", "policy.tiny.hidden is 96, but the run that is gone on with was begun with 192"),
        ("policy.tiny.merges=0", "begin another run"),
        ("policy.path=owner/other", "policy.path is 'owner/other', but the run that is gone on with was begun with"),
    ],
)
def test_what_a_run_cannot_change_is_refused(tmp_path: Path, override: str, said: str) -> None:
    saved = saved_run(tmp_path, "seed=0")
    assert resume_recipe(saved, ["seed=0"]) == read_recipe(saved)
    with pytest.raises(ConfigError) as caught:
        resume_recipe(saved, [override])
    assert said in str(caught.value)
