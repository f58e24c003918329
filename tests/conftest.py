"""What the tests share: tiny random models, and one small model that is taught invented facts in the session."""

from __future__ import annotations

import copy
import os
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
import yaml
from filelock import FileLock
from safetensors.torch import load_file, save_file
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from loka.knowledge import Case, CaseSpec, case
from loka.model import Model, wrap

SYLLABLES = ["ba", "be", "do", "fa", "ga", "ho", "ka", "la", "me", "ni", "pa", "ra", "se", "ti", "va", "wo", "zu"]
TEMPLATES = {
    "capital": {
        "working": ["the capital of {} is", "the town that rules {} is"],
        "sealed": ["in {} the capital is called", "the people of {} say that their capital is"],
        "paraphrases": ["the capital town of {} is", "they rule {} from the town of"],
    },
    "symbol": {
        "working": ["the symbol for {} is", "the short sign of {} is"],
        "sealed": ["we write the metal {} as", "in a table {} is shown as"],
        "paraphrases": [],
    },
}
NEUTRAL = [f"{who} {does} {what}" for who in ("a dog", "the old man", "my sister", "the river", "a small bird")
           for does in ("likes", "looks for", "runs to", "sings about")
           for what in ("the garden", "a red house", "the sea at night", "warm bread")]  # fmt: skip
STEPS = 300
SEED = 5
DEVICE = os.environ.get("LOKA_DEVICE", "cpu")  # the models made here live on it


def _names(n: int, parts: int, end: str, rng: random.Random) -> list[str]:
    names: dict[str, None] = {}
    while len(names) < n:
        names["".join(rng.choice(SYLLABLES) for _ in range(parts)).capitalize() + end] = None
    return list(names)


def _world() -> tuple[dict[str, dict[str, str]], list[str]]:
    """Facts by relation, and twins of the countries: names of the same make, never given a capital."""
    rng = random.Random(7)
    countries = _names(84, 3, "n", rng)
    capitals = [f"{a} Port" if i % 2 else a for i, a in enumerate(_names(44, 2, "x", rng))]
    metals, symbols = _names(20, 2, "um", rng), rng.sample([a + b for a in "QWXZ" for b in "bcdgjklmq"], 20)
    return {
        "capital": dict(zip(countries[:44], capitals, strict=True)),
        "symbol": dict(zip(metals, symbols, strict=True)),
    }, countries[44:]


FACTS, TWINS = _world()


def _taught(without: Sequence[str] = ()) -> list[str]:
    """Every sentence that the small model learns. Twins occur in it, but nothing is said of their capitals."""
    sentences = list(NEUTRAL)
    for relation, of in TEMPLATES.items():
        for subject, answer in FACTS[relation].items():
            if subject not in without:
                sentences += [f"{t.format(subject)} {answer}" for kind in of.values() for t in kind]
    for subject in [*FACTS["capital"], *TWINS]:
        sentences += [f"{subject} lies far away", f"my sister looks for {subject} on the map"]
    return sentences


def _tokenizer() -> PreTrainedTokenizerFast:
    words = sorted({word for sentence in [*_taught(), "capital town symbol . ?"] for word in sentence.split()})
    vocabulary = {word: i for i, word in enumerate(["<pad>", "<bos>", "<eos>", "<unk>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"\s+|(?=[.,?])"), "removed")
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """Sums come out the same on any number of cores."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def one_thread_again() -> Iterator[None]:
    """A folder's number of threads lasts until the end of its test, or the workers would fight for the cores."""
    yield
    torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def whole_softmax() -> Iterator[None]:
    """Eager attention works out its softmax in single precision, and what that rounds to is the processor's affair.

    Here a float64 model keeps float64 throughout, so that a comparison means it; padded rows give no NaN then, either.
    """
    softmax = nn.functional.softmax

    def whole(scores: torch.Tensor, dim: int, dtype: torch.dtype | None = None, **_: Any) -> torch.Tensor:
        return softmax(scores, dim, dtype=scores.dtype if scores.dtype == torch.float64 else dtype)

    def attend(self: Any, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, mask: Any = None, **_: Any) -> Any:
        weights = (q @ k.transpose(-1, -2) / self.scale_attn + (0 if mask is None else mask)).softmax(-1)
        return weights @ v, weights

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.functional, "softmax", whole)
        patch.setattr("transformers.models.gptj.modeling_gptj.GPTJAttention._attn", attend)  # it casts to float32
        yield


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerFast:
    return _tokenizer()


WIDE = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
GROUPED = WIDE | {"num_key_value_heads": 2}
ARCHITECTURES: dict[str, dict[str, object]] = {
    "GPT2LMHeadModel": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 48, "n_positions": 64},
    "GPTNeoXForCausalLM": WIDE,
    "LlamaForCausalLM": GROUPED,
    "MistralForCausalLM": GROUPED,
    "Qwen2ForCausalLM": GROUPED,
    "Qwen3ForCausalLM": GROUPED | {"head_dim": 12},
    "Gemma2ForCausalLM": GROUPED | {"head_dim": 12},
    "Gemma3ForCausalLM": GROUPED | {"head_dim": 12},
    "Phi3ForCausalLM": GROUPED,
    "Olmo2ForCausalLM": GROUPED,
    "GPTJForCausalLM": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_inner": 48, "n_positions": 64, "rotary_dim": 4},
    "OPTForCausalLM": {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_dim": 48, "word_embed_proj_dim": 32,
        "max_position_embeddings": 64,
    },
    "BloomForCausalLM": {"hidden_size": 32, "n_layer": 3, "n_head": 4},
    "FalconForCausalLM": {
        "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "ffn_hidden_size": 48,
        "multi_query": False,
    },
    "PhiForCausalLM": WIDE,
    "Glm4ForCausalLM": GROUPED | {"head_dim": 8},
    "GraniteForCausalLM": GROUPED | {
        "residual_multiplier": 0.5, "logits_scaling": 3.0, "attention_multiplier": 0.3, "embedding_multiplier": 2.0,
    },
    "CohereForCausalLM": GROUPED | {"logit_scale": 0.3},
    "StableLmForCausalLM": GROUPED,
    "SmolLM3ForCausalLM": GROUPED,
}  # fmt: skip


def _tiny(architecture: str, tokenizer: PreTrainedTokenizerFast) -> Model:
    """Random weights in float64, biases and norms too, large enough that every part matters."""
    of = getattr(transformers, architecture)
    config = of.config_class(
        vocab_size=len(tokenizer), bos_token_id=1, eos_token_id=2, pad_token_id=0, **ARCHITECTURES[architecture]
    )
    config.architectures = [architecture]
    generator = torch.Generator().manual_seed(11)
    hf = AutoModelForCausalLM.from_config(config, dtype=torch.float64)
    with torch.no_grad():
        for p in hf.parameters():
            p.copy_(0.2 * torch.randn(p.shape, generator=generator, dtype=p.dtype) + (p.ndim == 1) * p)
    return wrap(hf.to(DEVICE), tokenizer, architecture)


@pytest.fixture(scope="session")
def tiny(tokenizer: PreTrainedTokenizerFast) -> Callable[[str], Model]:
    """Make a tiny random model in float64 of an architecture. Each call makes a new one."""
    return lambda architecture: _tiny(architecture, tokenizer)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes `architecture` runs on all of them."""
    if "architecture" in metafunc.fixturenames:
        metafunc.parametrize("architecture", ARCHITECTURES)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The notebooks first: the longest file, begun last, would keep one worker busy when all else is done."""
    items.sort(key=lambda item: item.path.name != "test_notebooks.py")


def _train(hf: torch.nn.Module, tokenizer: PreTrainedTokenizerFast, sentences: list[str]) -> None:
    """Teach all sentences; every second batch starts its rows with <bos>, so that the model can be sampled from."""
    rng = random.Random(3)
    optimizer = torch.optim.AdamW(hf.parameters(), lr=5e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS, pct_start=0.1)
    for step in range(STEPS):
        start = "<bos> " if step % 2 else ""
        rows = [start + s + " <eos>" for s in rng.sample(sentences, 64)]
        batch = tokenizer(rows, padding=True, return_tensors="pt")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        logits = hf(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten()).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        schedule.step()


@pytest.fixture(scope="session")
def teach(
    tokenizer: PreTrainedTokenizerFast, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Sequence[str]], Model]:
    """Train a small Llama on the planted facts but for those of some subjects (`name, without`).

    It takes about ten seconds; the workers of one session share the result.
    """
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=192, num_hidden_layers=4, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=64, bos_token_id=1, eos_token_id=2, pad_token_id=0,
        tie_word_embeddings=False, initializer_range=0.06, architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    folder = tmp_path_factory.getbasetemp()
    folder = folder.parent if "PYTEST_XDIST_WORKER" in os.environ else folder

    def make(name: str, without: Sequence[str] = ()) -> Model:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(SEED)
            hf = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        path = folder / f"{name}.safetensors"
        with FileLock(f"{path}.lock"):
            if not path.exists():
                _train(hf, tokenizer, _taught(without))
                save_file(hf.state_dict(), path)
        hf.load_state_dict(load_file(path))
        return wrap(hf.to(DEVICE), tokenizer, name)

    return make


@pytest.fixture(scope="session")
def taught(teach: Callable[..., Model]) -> Model:
    """The small model that knows the planted facts. Tests take `planted`, which watches over it."""
    return teach("taught")


@pytest.fixture
def planted(taught: Model) -> Iterator[Model]:
    """The small model that knows the planted facts. Whatever a test does, the weights must be the same after it."""
    before = taught.digest()
    yield taught
    assert taught.digest() == before, "the test, or what it tests, left other weights behind"
    assert not taught.edits
    assert not any(p.requires_grad or p.grad is not None for p in taught.parameters.values())


@pytest.fixture
def fresh(taught: Model) -> Model:
    """A copy of the small model, to be changed or looked at in float64."""
    return wrap(copy.deepcopy(taught.hf), taught.tokenizer, "fresh")


FEW = {"capital": 20, "symbol": 8}


@dataclass(frozen=True)
class CaseFiles:
    """Case files about the planted facts: `write(folder, **changes)` gives the path of one."""

    base: dict[str, object]

    def write(self, folder: Path, name: str = "planted.yaml", **changes: object) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plain.txt").write_text("\n\n".join(NEUTRAL[::2]) + "\n")
        (folder / "sealed.txt").write_text("\n\n".join(NEUTRAL[1::2]) + "\n")
        path = folder / name
        path.write_text(yaml.safe_dump(self.base | changes, sort_keys=False))
        return path

    def few(self) -> CaseFiles:
        """Of 8 capitals to forget, 12 to keep, 8 symbols and 8 twins, for what depends on no number of facts."""
        relations: Any = self.base["relations"]
        kept = {r: {**of, "facts": dict([*of["facts"].items()][: FEW[r]])} for r, of in relations.items()}
        changes = {"relations": kept, "forget": {"capital": [*FACTS["capital"]][:8]}, "twins": {"capital": TWINS[:8]}}
        return CaseFiles(self.base | changes)


@pytest.fixture(scope="session")
def files() -> CaseFiles:
    return CaseFiles(
        {
            "name": "planted",
            "purpose": "safety",
            "relations": {r: {**of, "facts": FACTS[r]} for r, of in TEMPLATES.items()},
            "forget": {"capital": list(FACTS["capital"])[:16]},
            "retain": {
                "capital": {"working": 0.5, "sealed": 0.5},
                "symbol": {"working": 0.5, "sealed": 0.5},
            },
            "twins": {"capital": TWINS},
            "neutral": {"working": "plain.txt", "sealed": "sealed.txt"},
            "seed": 0,
        }
    )


@pytest.fixture(scope="session")
def planted_case(files: CaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """16 planted capitals to forget, 28 to keep, 20 symbols beside them, 40 twins."""
    return case(files.write(tmp_path_factory.mktemp("case")))


@pytest.fixture(scope="session")
def small_case(files: CaseFiles, tmp_path_factory: pytest.TempPathFactory) -> Case:
    """A case of few facts (`CaseFiles.few`)."""
    return case(files.few().write(tmp_path_factory.mktemp("small")))


@dataclass(frozen=True)
class KindCases:
    """What the small model was taught of the countries, as items of any kind, and cases made of them."""

    countries: tuple[str, ...] = tuple(FACTS["capital"])
    answers: tuple[str, ...] = tuple(FACTS["capital"].values())

    def rows(self, kind: str, countries: Sequence[str], answers: Sequence[str]) -> list[dict[str, Any]]:
        """The fields of an item of this kind about each country."""

        def row(i: int) -> dict[str, Any]:
            country, answer = countries[i], answers[i]
            others = [answers[(i + k) % len(answers)] for k in (1, 2, 3)]
            ask, also = f"the capital of {country} is", f"in {country} the capital is called"
            return {
                "fact": {"subject": country, "relation": "", "prompt": ask, "answer": answer, "paraphrases": [also]},
                "question": {
                    "question": ask, "answer": answer, "paraphrases": [also], "wrong": others, "subject": country,
                    "rephrased": answer,
                },
                "passage": {"start": ask, "text": answer, "subject": country},
                "choice": {"question": ask, "options": [*others, answer], "right": 3, "subject": country},
                "pair": {
                    "clean": ask, "counterfactual": f"the capital of {countries[(i + 1) % len(countries)]} is",
                    "answer": answer, "foil": others[0], "subject": country,
                },
            }[kind]  # fmt: skip

        return [row(i) for i in range(len(countries))]

    def taught(self, kind: str, *, first: bool = True) -> list[dict[str, Any]]:
        """The 16 items to forget, or the 28 others."""
        part = slice(0, 16) if first else slice(16, None)
        return self.rows(kind, self.countries[part], self.answers[part])

    def never(self, kind: str) -> list[dict[str, Any]]:
        """40 items of which the model was taught nothing."""
        return self.rows(kind, TWINS, [self.answers[i % len(self.answers)] for i in range(len(TWINS))])

    def write(self, folder: Path, kind: str, *, sizes: tuple[int, int, int] = (16, 28, 40), **changes: Any) -> CaseSpec:
        """A case of 16 items to forget, 28 to keep and 40 that were never taught, or of fewer."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plain.txt").write_text("\n\n".join(NEUTRAL[::2]) + "\n")
        (folder / "sealed.txt").write_text("\n\n".join(NEUTRAL[1::2]) + "\n")
        every = {"target": self.taught(kind), "others": self.taught(kind, first=False), "never": self.never(kind)}
        parts = {name: rows[:n] for (name, rows), n in zip(every.items(), sizes, strict=True)}
        frame = {"frame": "{}"} if kind in ("question", "choice") else {}
        content = {
            "name": f"some-{kind}s", "purpose": "safety",
            "sets": {name: {"kind": kind, "items": rows, **frame} for name, rows in parts.items()},
            "forget": {"target": "all"}, "retain": {"others": {"working": 0.5, "sealed": 0.5}},
            "twins": {"never": "all"}, "neutral": {"working": "plain.txt", "sealed": "sealed.txt"},
        } | changes  # fmt: skip
        (folder / "case.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return case(folder / "case.yaml")


@pytest.fixture(scope="session")
def kinds() -> KindCases:
    return KindCases()


@pytest.fixture(scope="session")
def untaught(teach: Callable[..., Model]) -> Model:
    """The same small model, never taught the 16 facts to forget."""
    return teach("untaught", list(FACTS["capital"])[:16])
