"""Defaults, overlaid by the file, overlaid by words: and every way to get it wrong."""

import doctest
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rec.config import load as module
from rec.config.load import dump, from_values, load, to_values
from rec.config.tree import Backbone, Data, Eval, Group, LossWeights, Optim, Run, SoftToken, Train
from rec.errors import ConfigError

MINIMAL = "dataset: d\nmodel: {kind: soft_token}\n"


@pytest.fixture
def write(tmp_path: Path):
    def file(text: str, name: str = "tiny.yaml") -> Path:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return tmp_path / name

    return file


def test_the_example_in_the_docstring_is_true():
    results = doctest.testmod(module)
    assert (results.failed, results.attempted > 2) == (0, True)


def test_the_last_word_wins_over_file_over_defaults(write: Any):
    file = write(MINIMAL + "optim: {lr: 1e-2, clip: 2}\n")
    run = load(file, ["optim.lr=5e-2", "optim.lr=3e-4", "train.steps=7"])
    assert (run.optim.lr, run.optim.clip, run.optim.eps, run.train.steps) == (3e-4, 2.0, 1e-8, 7)


def test_a_window_of_following_is_no_longer_than_a_history(write: Any):
    file = write(MINIMAL + "data: {max_items: 20}\n")
    assert load(file, ["model.following={kind: following, window: 20}"]).data.max_items == 20
    assert load(file, ["model.following={kind: following}", "data.max_items=4"]).data.max_items == 4
    with pytest.raises(ConfigError, match=r"following\.window is 21, .* data\.max_items = 20 .*; set it to 20 or less"):
        load(file, ["model.following={kind: following, window: 21}"])


@pytest.mark.parametrize(
    ("word", "says"),
    [
        ("optim.groups={'tables.*': {lr: -1}}", r"^optim\.groups\.tables\.\*: lr is -1\.0; choose a positive rate"),
        (
            "model={kind: graph_llm, prompts: {mine: {prompt: 'Of {itme}', main: '{title}'}}}",
            r"^model\.prompts\.mine: the prompt 'Of \{itme\}' has the field '\{itme\}'; did you mean '\{item\}'\?",
        ),
        (
            "model={kind: graph_llm, prompts: {mine: {prompt: 'Of {item', main: '{title}'}}}",
            r"^model\.prompts\.mine: the template 'Of \{item' is not complete",
        ),
        (
            "model={kind: graph_llm, prompts: {mine: {promt: 'Of {item}'}}}",
            r"^unknown key 'model\.prompts\.mine\.promt'",
        ),
    ],
)
def test_what_is_wrong_under_a_key_of_the_users_own_is_told_with_that_key_once(write: Any, word: str, says: str):
    with pytest.raises(ConfigError, match=says):
        load(write(MINIMAL), [word])


def test_a_run_is_named_after_its_file_unless_it_has_a_name(write: Any):
    assert load(write(MINIMAL)).name == "tiny"
    assert load(write(MINIMAL + "name: other\n")).name == "other"
    assert load(write(MINIMAL), ["name=third"]).folder == Path("runs/third")


def test_values_become_the_types_of_their_fields(write: Any):
    text = MINIMAL + (
        "optim:\n  lr: 3e-4\n  betas: [0.9, 0]\n  groups:\n    'tables.*': {lr: 1e-3, weight_decay: 0}\n"
        "train: {steps: 40_000, precision: bf16, trackers: []}\neval: {metrics: [mrr@5]}\n"
    )
    run = load(write(text), [
        "model.backbone.config.n_layer=2", "model.backbone.config.layer_norm_epsilon=1e-6",
        "model.backbone.config.tie=true", "model.backbone.config.kind_of=new", "model.freeze=['backbone.*']",
    ])  # fmt: skip
    assert run.optim.lr == 3e-4
    assert run.optim.betas == (0.9, 0.0)
    assert run.optim.groups == {"tables.*": Group(lr=1e-3, weight_decay=0.0)}
    assert (run.train.steps, run.train.precision, run.train.trackers) == (40_000, "bf16", ())
    assert run.eval.metrics == ("mrr@5",)
    config = run.model.backbone.config
    assert config == {"n_layer": 2, "layer_norm_epsilon": 1e-6, "tie": True, "kind_of": "new"}
    assert [type(value) for value in config.values()] == [int, float, bool, str]
    assert run.model.freeze == ("backbone.*",)
    assert run.dataset == Path("d")


@pytest.mark.parametrize(
    ("word", "told"),
    [
        ("optim.lrr=1", r"unknown key 'optim\.lrr'; did you mean 'lr'\?"),
        ("model.backbone.pretraned=true", r"unknown key 'model\.backbone\.pretraned'; did you mean 'pretrained'\?"),
        ("zzzz=1", r"unknown key 'zzzz'; choose one of name, dataset, model, data"),
        ("model.kind=sasrek", r"model\.kind is 'sasrek'; choose one of soft_token"),
        ("model.kind=null", r"model\.kind is None; choose one of soft_token"),
        ("train.precision=fp8", r"train\.precision is 'fp8'; choose one of fp32, bf16, fp16"),
        ("train.trackers=[wandbb]", r"train\.trackers\[0\] is 'wandbb'; choose one of tensorboard, wandb"),
        ("optim.betas=[0.9]", r"optim\.betas is \[0\.9\]; write a list of 2"),
        ("optim.betas=0.9", r"optim\.betas is 0\.9; write a list"),
        ("optim.betas=[0.9, x]", r"optim\.betas\[1\] is 'x'; write a number"),
        ("optim.groups=[1]", r"optim\.groups is \[1\]; write a group of keys"),
        ("optim=3", r"optim is a group of keys, not the value 3"),
        ("train.steps=many", r"train\.steps is 'many'; write a whole number"),
        ("train.steps=1.5", r"train\.steps is 1\.5; write a whole number"),
        ("train.steps=true", r"train\.steps is True; write a whole number"),
        ("train.steps=", r"train\.steps is None; write a whole number"),
        ("optim.lr=fast", r"optim\.lr is 'fast'; write a number"),
        ("optim.lr=true", r"optim\.lr is True; write a number"),
        ("eval.filter_seen=1", r"eval\.filter_seen is 1; write true or false"),
        ("name=5", r"name is 5; write a text"),
        ("dataset=[a]", r"dataset is \['a'\]; write a path"),
        ("model.backbone.config.n=[1]", r"config\.n is \[1\]; write a whole number or a number or a text or true or"),
        ("optim.lr.x=1", r"'optim\.lr\.x' goes below 'lr', which is a value and not a group of keys"),
        ("optim.lr", r"'optim\.lr' is not an override; write key\.path=value"),
        ("=3", r"'=3' is not an override"),
        ("model.freeze=[a", r"the value of 'model\.freeze' line 1 is not YAML"),
        ("optim.lr=0", r"optim\.lr is 0\.0; choose a positive rate"),
        ("optim.lr=.nan", r"optim\.lr is nan; write a finite number"),
        ("model.dropout=1", r"model\.dropout is 1\.0; choose from 0 up to, not including, 1"),
        ("model.dim=0", r"model\.dim is 0; choose a positive width"),
        ("seed=-1", r"seed is -1; choose a whole number from 0"),
        (
            "model.loss.cross_entropy=0",
            r"model\.loss has no term that trains the backbone; set one of cross_entropy, sampled",
        ),
        ("optim.betas=[0.9, 1]", r"optim\.betas is \(0\.9, 1\.0\); choose both from 0 to below 1"),
        ("optim.lr=.inf", r"optim\.lr is inf; write a finite number"),
        ("name=../elsewhere", r"name is '\.\./elsewhere'; choose one word for a folder"),
        ("name=''", r"name is ''; choose one word for a folder"),
        ("model.loss.l2=-1", r"model\.loss\.l2 is -1\.0; choose 0 or more"),
        ("model.loss.gbce=1", r"data\.negatives is 0; set data\.negatives"),
        ("data.global_batch=10", r"data\.global_batch \(10\) must be a multiple of data\.micro_batch \(32\)"),
        ("train.save_every=0", r"train\.save_every is 0; choose a positive number"),
        ("eval.patience=-1", r"eval\.patience is -1; choose 0 or more"),
    ],
)
def test_what_is_wrong_is_named_with_its_remedy(write: Any, word: str, told: str):
    file = write(MINIMAL + "optim: {lr: 1e-3}\n")
    with pytest.raises(ConfigError, match=told):
        load(file, [word])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("dataset: d\n", r"'model' is missing; add it to the file or give model=value"),
        ("model: {kind: soft_token}\n", r"'dataset' is missing"),
        ("dataset: d\nmodel: {dim: 3}\n", r"model\.kind is None; choose one of soft_token"),
        ("dataset: d\nmodel: [\n", r"tiny\.yaml line 3 is not YAML"),
        ("dataset: d\n\tmodel: 1\n", r"tiny\.yaml line 2 is not YAML"),
        ("- a\n- b\n", r"tiny\.yaml holds no keys; write `key: value` lines"),
        ("", r"holds no keys"),
        ("3: x\n" + MINIMAL, r"unknown key '3'"),
        (MINIMAL + "model_: {user_token: false}\n", r"unknown key 'model_'; did you mean 'model'"),
        ("dataset: d\nmodel: {kind: soft_token, user_token: false, predict_first: true}\n", r"predict_first needs mod"),
    ],
)
def test_a_file_that_is_wrong_says_where(write: Any, text: str, told: str):
    with pytest.raises(ConfigError, match=told):
        load(write(text))


def test_a_file_that_is_not_there_is_told_in_one_sentence(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"cannot read the configuration .*none\.yaml: No such file"):
        load(tmp_path / "none.yaml")


positive = st.floats(1e-12, 1e12)
words = st.text(st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
runs = st.builds(
    Run,
    name=words.filter(lambda word: "/" not in word and word.strip(".")),
    dataset=words.map(Path),
    model=st.builds(
        SoftToken,
        backbone=st.builds(Backbone, source=st.none() | words, config=st.dictionaries(words, st.integers())),
        dropout=st.floats(0, 0.99),
        freeze=st.lists(words, max_size=3).map(tuple),
        item_init=st.none() | words,
        loss=st.builds(LossWeights, cross_entropy=positive, l2=positive),
    ),
    data=st.builds(Data, global_batch=st.integers(1, 9).map(lambda n: n * 32)),
    optim=st.builds(
        Optim, lr=positive, eps=positive, betas=st.tuples(st.floats(0, 0.99), st.floats(0, 0.99)),
        groups=st.dictionaries(words, st.builds(Group, lr=st.none() | positive)),
    ),
    train=st.builds(Train, steps=st.integers(1, 10**12), precision=st.sampled_from(["fp32", "bf16", "fp16"])),
    eval=st.builds(Eval, metrics=st.lists(words, max_size=3).map(tuple)),
)  # fmt: skip


@given(runs)
def test_what_is_written_is_read_back_as_the_same_run(run: Run):
    assert from_values(to_values(run)) == run
    assert from_values(module.yaml.safe_load(dump(run))) == run


def test_a_dumped_run_is_loaded_back(tmp_path: Path):
    run = Run(name="n", dataset=Path("d"), model=SoftToken(freeze=("a*",)), optim=Optim(groups={"x": Group(lr=1e-05)}))
    (tmp_path / "other.yaml").write_text(dump(run))
    assert load(tmp_path / "other.yaml") == run


def test_a_key_given_twice_is_refused(write):
    with pytest.raises(ConfigError, match=r"line 3 is not YAML: 'optim' is given twice"):
        load(write("dataset: d\noptim: {lr: 1}\noptim: {clip: 1}\n"))


def test_a_whole_number_may_be_written_with_an_exponent(write):
    assert load(write(MINIMAL), ["train.steps=1e3"]).train.steps == 1000
