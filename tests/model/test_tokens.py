"""Text becomes tokens in one place: no special token is a label, and no space stands where the language has none."""

from collections.abc import Callable

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

from loka._util.errors import UserError
from loka.model import Model, Prompt, chat, encode, first_tokens, join, split, token_ids, wrap

TEXT = "the capital of a dog is"
TEMPLATES = {
    "nothing": ("$A", []),
    "bos": ("<bos> $A", [1]),
    "eos": ("$A <eos>", []),
    "both": ("<bos> $A <eos>", [1]),
}


def with_template(model: Model, template: str) -> Model:
    """The same model with a tokenizer that puts special tokens around every text."""
    inner = Tokenizer.from_str(model.tokenizer.backend_tokenizer.to_str())
    inner.post_processor = TemplateProcessing(single=template, special_tokens=[("<bos>", 1), ("<eos>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", bos_token="<bos>", eos_token="<eos>", unk_token="<unk>"
    )
    return wrap(model.hf, tokenizer, "with specials")


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_row_keeps_its_start_and_has_no_special_label(tiny: Callable[[str], Model], name: str) -> None:
    template, start = TEMPLATES[name]
    model = with_template(tiny("LlamaForCausalLM"), template)
    plain = model.tokenizer(TEXT, add_special_tokens=False)["input_ids"]
    assert token_ids(model, [TEXT]) == [[*start, *plain]]
    batch = encode(model, [TEXT, "a dog"], ["warm bread", "the sea"])
    labels = batch.labels[batch.labels >= 0].tolist()
    assert not {0, 1, 2} & set(labels)
    assert model.tokenizer.decode(labels) == "warm bread the sea"
    assert first_tokens(model, ["warm bread"]) == model.tokenizer("warm", add_special_tokens=False)["input_ids"]


def test_a_text_that_brings_its_start_gets_no_second_one(tiny: Callable[[str], Model]) -> None:
    model = with_template(tiny("LlamaForCausalLM"), "<bos> $A")
    assert token_ids(model, [f"<bos> {TEXT}"]) == token_ids(model, [TEXT])


@pytest.mark.parametrize(
    ("prompt", "answer", "whole"),
    [
        ("The capital of Japan is", "Tokyo", "The capital of Japan is Tokyo"),
        ("日本の首都は", "東京", "日本の首都は東京"),
        ("เมืองหลวงของไทยคือ", "กรุงเทพ", "เมืองหลวงของไทยคือกรุงเทพ"),
        ("한국의 수도는", "서울", "한국의 수도는 서울"),
        ("The capital of Japan is (", "Tokyo", "The capital of Japan is (Tokyo"),
        ('She said: "', "Tokyo", 'She said: "Tokyo'),
        ('"Japan" has the capital', "Tokyo", '"Japan" has the capital Tokyo'),
        ('The name is "Japan"', "Tokyo", 'The name is "Japan" Tokyo'),
        ("<|assistant|>\n", "Tokyo", "<|assistant|>\nTokyo"),
        ("Answer:", "Tokyo", "Answer: Tokyo"),
    ],
)
def test_answers_follow_as_the_language_writes_them(prompt: str, answer: str, whole: str) -> None:
    assert join(prompt, answer) == whole


def test_the_answer_in_a_script_without_spaces_is_its_own_tokens(tiny: Callable[[str], Model]) -> None:
    characters = sorted(set("日本の首都は東京大阪"))
    inner = Tokenizer(
        models.WordLevel({c: i for i, c in enumerate(["<pad>", *characters, "<unk>"])}, unk_token="<unk>")
    )
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="<pad>", unk_token="<unk>")
    model = wrap(tiny("LlamaForCausalLM").hf, tokenizer, "characters")
    ((_, tail),) = split(model, ["日本の首都は"], ["東京"])
    assert tokenizer.convert_ids_to_tokens(tail) == ["東", "京"]


TODAY = "{{ strftime_now('%Y') }}{% for m in messages %} {{ m.content }}{% endfor %}"
THINKS = "{% for m in messages %}{{ m.content }}{% endfor %}{% if add_generation_prompt %} reply <think>\n{% endif %}"


def test_a_chat_has_no_day_of_today_and_a_closed_thought(tiny: Callable[[str], Model]) -> None:
    model = with_template(tiny("LlamaForCausalLM"), "$A")
    assert chat(model, "hello") is None
    model.tokenizer.chat_template = TODAY
    assert chat(model, "hello", "the") == "26 Jul 2024 hellothe"
    model.tokenizer.chat_template = THINKS
    text = chat(model, "hello")
    assert text is not None
    assert text.count("<think>") == text.count("</think>") == 1
    assert text.startswith("hello reply <think>")


def test_what_does_not_fit_is_refused(tiny: Callable[[str], Model]) -> None:
    model = tiny("GPT2LMHeadModel")
    with pytest.raises(UserError, match=r"a text of 6\d tokens .* does not fit the context of GPT2LMHeadModel, 64"):
        encode(model, ["a dog " * 32], ["the sea"])
    with pytest.raises(UserError, match="nothing stands before the answer"):
        encode(model, [""], ["the sea"])


def test_slots_move_with_the_text() -> None:
    prompt = Prompt.fill("In {} they say {} is large", "Niger")
    assert prompt.slots == ((3, 8), (18, 23))
    assert [prompt[a:b] for a, b in prompt.slots] == ["Niger", "Niger"]
    other = prompt.about("Chad")
    assert other == "In Chad they say Chad is large"
    assert [other[a:b] for a, b in other.slots] == ["Chad", "Chad"]
    assert prompt.after("Well. ").slots == ((9, 14), (24, 29))
    assert Prompt.spot("東京は大きい", "東京").slots == ((0, 2),)
