"""Task files in the harness's YAML, read as data: no code, no network, nothing outside their folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from ..._util.errors import UserError
from ..._util.yaml_text import read_yaml
from ...knowledge.rows import Row, rows

SUFFIXES = (".yaml", ".yml")
MOST_BYTES = 1_000_000
FORMATS = ("json", "csv", "parquet")
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")
KEYS = {
    *SPLITS, "task", "task_alias", "tag", "dataset_path", "dataset_kwargs", "description", "target_delimiter",
    "fewshot_delimiter", "fewshot_config", "num_fewshot", "doc_to_text", "doc_to_target", "doc_to_choice", "gen_prefix",
    "output_type", "generation_kwargs", "repeats", "metric_list", "filter_list", "should_decontaminate",
    "doc_to_decontamination_query", "metadata",
}  # fmt: skip
CODE = {
    "include": "it reads another file",
    "class": "it names Python code",
    "unsafe_code": "it runs what a model writes",
    "custom_dataset": "it names Python code",
    "process_docs": "it names Python code",
    "process_results": "it names Python code",
    "use_prompt": "it fetches prompts from elsewhere",
    "group": "it is a group; give its tasks",
}
# Others of transformers' `generate` can fetch and run code.
GENERATION = {
    "until", "do_sample", "temperature", "top_p", "top_k", "num_beams", "repetition_penalty", "max_gen_toks",
    "max_new_tokens",
}  # fmt: skip


@dataclass(frozen=True)
class TaskFile:
    """One task: the harness's settings, and the rows of each split.

    Attributes:
        path: the YAML file.
        config: its content without the data files.
        splits: rows by split.
    """

    path: Path
    config: Mapping[str, Any]
    splits: Mapping[str, list[Row]]

    @property
    def name(self) -> str:
        return self.config["task"]

    @property
    def digest(self) -> str:
        """SHA-256 of settings and rows."""
        text = json.dumps([self.config, self.splits], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()


def task_files(source: str | Path) -> list[TaskFile]:
    """The task of a YAML file, or the tasks of a folder of them, in order of their names.

    A task file from outside is data. LOKA therefore refuses the tag `!function`, `include`, and every key and metric
    that names, fetches or runs code. Data files are JSON, CSV or Parquet, with paths relative to the YAML, in its
    folder or in the folder that was named.

    Raises:
        UserError: no such file or folder, a file that is not a task, or one that asks for more than data.
    """
    path = Path(source)
    if path.is_dir():
        found = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES)
        if not found:
            raise UserError(f"the folder {str(path)!r} has no task files; give one with *.yaml files.")
        return [_read(p, path) for p in found]
    if not path.is_file() or path.suffix not in SUFFIXES:
        raise UserError(f"{str(path)!r} is not a task file; give an existing *.yaml file, or a folder of them.")
    return [_read(path, path.parent)]


def _read(path: Path, root: Path) -> TaskFile:
    what = f"the task file {str(path)!r}"
    config = _config(path, what)
    for key in config:
        if key in CODE:
            raise UserError(f"{what} has {key!r} ({CODE[key]}); LOKA reads task files as data, so leave it out.")
    _check_keys(config, KEYS, what)
    if not isinstance(config.get("task"), str):
        raise UserError(f"{what} is not a task: it needs a name, such as task: my_task.")
    _check_keys(config.get("generation_kwargs"), GENERATION, f"generation_kwargs of {what}")
    splits = {name: _rows(files, path, root, what) for name, files in _data_files(config, what).items()}
    for key in SPLITS:
        if config.get(key) is not None and config[key] not in splits:
            raise UserError(f"{what} has {key}: {config[key]!r}, but its data_files name {', '.join(splits)}.")
    if not config.get("test_split") and not config.get("validation_split"):
        raise UserError(f"{what} says nothing of what to ask; add test_split: NAME, one of {', '.join(splits)}.")
    rest = {k: v for k, v in config.items() if k not in ("dataset_path", "dataset_kwargs")}
    return TaskFile(path, rest, splits)


def _config(path: Path, what: str) -> dict[str, Any]:
    if path.stat().st_size > MOST_BYTES:
        raise UserError(f"{what} has more than {MOST_BYTES:,} bytes; put its rows into data_files.")
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{what} cannot be read ({error}); give a text file in UTF-8.") from error
    if tag := next(_tags(text), None):
        raise UserError(f"{what} has the tag {tag}; LOKA reads task files as data, so write text or numbers there.")
    config = read_yaml(text, what)
    if not isinstance(config, dict):
        raise UserError(f"{what} is not a task: it must map names such as task and doc_to_text to values.")
    return config


def _tags(text: str) -> Iterator[str]:
    """The tags of a document that are not YAML's own."""
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            tag = getattr(event, "tag", None)
            if tag and tag != "!" and not tag.startswith("tag:yaml.org,2002:"):
                yield tag
    except yaml.YAMLError:
        return  # `read_yaml` says what is wrong


def _data_files(config: Mapping[str, Any], what: str) -> dict[str, list[str]]:
    """The data files of each split. Without split names, all are the split `train`, as in `datasets`."""
    if config.get("dataset_path") not in FORMATS:
        raise UserError(
            f"{what} has dataset_path: {config.get('dataset_path')!r}; choose one of {', '.join(FORMATS)} and name the "
            "files in dataset_kwargs: data_files, or name a task of the harness."
        )
    _check_keys(config.get("dataset_kwargs"), {"data_files"}, f"dataset_kwargs of {what}")
    files: Any = (config.get("dataset_kwargs") or {}).get("data_files")
    found: dict[str, list[str]] = {}
    for split, each in (files if isinstance(files, dict) else {"train": files}).items():
        names = [each] if isinstance(each, str) else each
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise UserError(f"{what} names no data files; write dataset_kwargs: {{data_files: {{test: rows.jsonl}}}}.")
        found[str(split)] = names
    return found


def _rows(files: list[str], path: Path, root: Path, what: str) -> list[Row]:
    found: list[Row] = []
    for name in files:
        file = (path.parent / name).resolve()
        if not file.is_relative_to(root.resolve()):
            raise UserError(f"{what} reads {name!r}, which is outside {str(root)!r}; put the data into that folder.")
        found += _whole(rows(file), f"{name!r} of {what}")
    return found


def _whole(found: list[Row], where: str) -> list[Row]:
    """The rows, if all have the same fields: the harness would read a missing one as the text `None`."""
    fields = dict.fromkeys(key for row in found for key in row)
    for number, row in enumerate(found, 1):
        if missing := [key for key in fields if key not in row]:
            raise UserError(f"row {number} of {where} has no {missing[0]!r}, which others have; give each the same.")
    return found


def _check_keys(values: object, allowed: set[str], what: str) -> None:
    if values is None:
        return
    if not isinstance(values, dict):
        raise UserError(f"{what} must map names to values, but it is {values!r}.")
    if unknown := [str(key) for key in values if key not in allowed]:
        choice = ", ".join(sorted(allowed))
        raise UserError(f"{what} has {unknown[0]!r}, which LOKA does not take; choose from {choice}.")
