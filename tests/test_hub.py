"""What is pretrained comes from a folder or the hub; what cannot be had is said at once."""

import re
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub.errors import RemoteEntryNotFoundError

from rec import hub
from rec.config.tree import Backbone
from rec.errors import ConfigError
from rec.nn import backbone
from rec.text.tokenizer import Tokenizer

REPOSITORY = Path(__file__).resolve().parent.parent


class Asked(list[str]):
    """Stands in for the hub: notes what it is asked, and answers with an error, if it has one."""

    def __init__(self, error: Exception | None) -> None:
        super().__init__()
        self.error = error

    def __call__(self, url: str, timeout: float) -> None:
        assert timeout <= 5
        self.append(url)
        if self.error is not None:
            raise self.error


def ask(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> Asked:
    asked = Asked(error)
    monkeypatch.setattr(hub, "get_hf_file_metadata", asked)
    return asked


def given(source: str, **arguments: Any) -> dict[str, Any]:
    """What a reader gets."""
    return {"source": source, **arguments}


@pytest.mark.parametrize(
    "source", ["models/minilm", "models/words/", "./tiny", "../tiny", "/nowhere/tiny", "a/b/c", "~/tiny", "a b"]
)
def test_a_folder_that_is_missing_is_refused_without_a_word_to_the_hub(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    asked = ask(monkeypatch)
    with pytest.raises(ConfigError, match=rf"^key is '{re.escape(source)}', a folder that is not there; .*do this$"):
        hub.from_source(given, source, key="key", remedy="do this")
    assert asked == []


@pytest.mark.parametrize("source", hub.RECIPES)
def test_what_make_can_make_is_the_remedy_and_make_can(source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    assert re.search(rf"^{source}:", (REPOSITORY / "Makefile").read_text(), re.MULTILINE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=rf"model\.backbone\.source is '{source}', .*; make it with `make {source}`"):
        backbone.configuration(Backbone(source=source))


def test_a_tokenizer_that_is_missing_names_what_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"not there; set .*`python -m benchmarks\.tokenizer DATASET FOLDER` makes$"):
        Tokenizer.open("models/words")


def test_a_folder_that_is_there_is_read_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    asked = ask(monkeypatch)
    for name in ("models/mine", "gpt2"):
        (tmp_path / name).mkdir(parents=True)
        assert hub.from_source(given, name, key="key", remedy="do this", more=1) == {"source": name, "more": 1}
    assert asked == []


@pytest.mark.parametrize("source", ["gpt2", "Qwen/Qwen2-0.5B"])
def test_a_name_of_the_hub_is_asked_for_there(source: str, monkeypatch: pytest.MonkeyPatch):
    asked = ask(monkeypatch)
    assert hub.from_source(given, source, key="key", remedy="do this") == {"source": source}
    assert [url.endswith(f"/{source}/resolve/main/config.json") for url in asked] == [True]


def test_an_answer_that_refuses_is_left_to_the_reader_who_says_more_of_it(monkeypatch: pytest.MonkeyPatch):
    ask(monkeypatch, RemoteEntryNotFoundError.__new__(RemoteEntryNotFoundError))
    assert hub.from_source(given, "gpt2", key="key", remedy="do this") == {"source": "gpt2"}


def test_without_a_hub_what_was_downloaded_before_is_read_and_nothing_else(monkeypatch: pytest.MonkeyPatch):
    ask(monkeypatch, ConnectionError("no route"))
    assert hub.from_source(given, "gpt2", key="key", remedy="do this") == {"source": "gpt2", "local_files_only": True}

    def reader(source: str, **arguments: Any) -> None:
        raise OSError("many\nlines")

    said = r"^key is 'gpt2', .* \(it was not downloaded before, and the hub cannot be reached: no route\); do this$"
    with pytest.raises(ConfigError, match=said):
        hub.from_source(reader, "gpt2", key="key", remedy="do this")


def test_what_a_reader_says_of_a_damaged_folder_is_cut_to_its_first_line(tmp_path: Path):
    def reader(source: str) -> None:
        raise ValueError("no config\nand a page of advice")

    with pytest.raises(ConfigError, match=r"^key is '.*', which cannot be loaded \(no config\); do this$"):
        hub.from_source(reader, str(tmp_path), key="key", remedy="do this")
