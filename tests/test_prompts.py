"""What a model reads before it answers: the parts in order, special tokens once, long documents cut between tokens."""

import pytest

from lab_utils import config, models, pretrained
from lab_utils.config import Data, Prompt, load_recipe
from lab_utils.data import Example, load
from lab_utils.errors import LabError
from lab_utils.prompts import answer_ids, cut_document, prompt_ids, prompt_text, user_message

CHAT = Prompt(style="chat", system="You summarize.", instruction="Summarize this.", cue="In short:")
PLAIN = Prompt(style="plain", instruction="Summarize this.", cue="Summary:")
DOCUMENT = "Zoë: Café at 10? 😀 Déjà vu…\n#Person1#: 👩‍👩‍👧 naïve — 日本 ok"
SHOTS = [Example("1", "Ann: First.", ("Ann speaks first.",)), Example("2", "Ben: Second.", ("Ben speaks second.",))]


def load_tokenizer(recipe: str):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(pretrained.checkpoint_folder(load_recipe(recipe).model))


@pytest.fixture(scope="module")
def tokenizer(recipe):
    return load_tokenizer(recipe)


@pytest.fixture(scope="module")
def prompt(recipe):
    return load_recipe(recipe).prompt


@pytest.fixture(scope="module")
def bos_adder():
    """A tokenizer that puts BOS before every text by itself, as those of Llama, Mistral and Gemma do."""
    from tokenizers.processors import TemplateProcessing

    tokenizer = load_tokenizer("tiny-causal")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)])
    assert tokenizer("a")["input_ids"][0] == tokenizer.bos_token_id
    return tokenizer


@pytest.fixture(scope="module")
def smollm2():
    return load_tokenizer("smollm2-everyday")


def in_order(text: str, parts) -> bool:
    places = [text.find(part) for part in parts]
    return -1 not in places and places == sorted(places) and len(set(places)) == len(places)


def test_a_message_is_instruction_document_and_cue_with_a_blank_line_between():
    assert user_message(PLAIN, "Ann: Hi.\nBen: Bye.") == "Summarize this.\n\nAnn: Hi.\nBen: Bye.\n\nSummary:"


def test_a_prompt_without_cue_ends_with_the_document():
    assert user_message(Prompt(style="plain", instruction="Summarize this."), "Ann: Hi.") == "Summarize this.\n\nAnn: Hi."


def test_a_plain_prompt_is_the_message_and_nothing_else(tokenizer):
    assert prompt_text(tokenizer, PLAIN, "Ann: Hi.") == "Summarize this.\n\nAnn: Hi.\n\nSummary:"


def test_a_chat_prompt_holds_system_and_user_turn_and_ends_where_the_assistant_begins(bos_adder):
    expected = "<s><|system|>\nYou summarize.</s>\n<|user|>\nSummarize this.\n\nAnn: Hi.\n\nIn short:</s>\n<|assistant|>\n"
    assert prompt_text(bos_adder, CHAT, "Ann: Hi.") == expected


def with_template(template):
    tokenizer = load_tokenizer("tiny-causal")
    tokenizer.chat_template = template
    return tokenizer


def test_template_options_reach_the_template():
    tokenizer = with_template("{{ 'thinking: ' ~ enable_thinking ~ ', ' ~ voice }} {{ messages[0].content }}")
    prompt = Prompt(style="chat", instruction="Sum up.", template_options={"enable_thinking": False, "voice": "plain"})
    assert prompt_text(tokenizer, prompt, "Ann: Hi.") == "thinking: False, plain Sum up.\n\nAnn: Hi."


def test_a_chat_prompt_without_a_template_is_refused_with_the_cure():
    with pytest.raises(LabError, match="no chat template: set the recipe's prompt to style: plain"):
        prompt_text(with_template(None), CHAT, "Ann: Hi.")


@pytest.mark.parametrize("system, hint", [("You summarize.", "write it into 'instruction'"), (None, None)])
def test_a_prompt_that_a_template_refuses_is_one_sentence_with_its_reason(system, hint):
    tokenizer = with_template("{{ raise_exception('Only poems, please!') }}")
    with pytest.raises(LabError) as caught:
        prompt_text(tokenizer, Prompt(style="chat", system=system, instruction="Sum up."), "Ann: Hi.")
    text = str(caught.value)
    assert "Only poems, please!" in text and text.endswith(".") and "\n" not in text
    assert (hint in text) if hint else ("instruction" not in text)


def test_a_chat_prompt_without_system_message_has_no_system_turn(bos_adder):
    text = prompt_text(bos_adder, Prompt(style="chat", instruction="Summarize this."), "Ann: Hi.")
    assert text == "<s><|user|>\nSummarize this.\n\nAnn: Hi.</s>\n<|assistant|>\n"


def test_few_shot_prompts_hold_the_shots_in_order_each_with_its_summary_before_the_document(tokenizer, prompt):
    text = prompt_text(tokenizer, prompt, "Cem: Third.", SHOTS)
    assert in_order(text, ["Ann: First.", "Ann speaks first.", "Ben: Second.", "Ben speaks second.", "Cem: Third."])
    assert text.count(prompt.instruction) == 3


def test_shots_come_before_what_the_model_reads_anyway(tokenizer, prompt):
    """Up to the first user message the two agree; from the last one on, too."""
    shot, bare = prompt_text(tokenizer, prompt, "Cem: Third.", SHOTS), prompt_text(tokenizer, prompt, "Cem: Third.")
    assert shot.endswith(bare[bare.index(prompt.instruction) :])
    assert shot.startswith(bare[: bare.index(prompt.instruction)])


def test_a_shot_in_a_plain_prompt_looks_as_a_training_row_does(tokenizer):
    """The cue, one space, the summary: the way in which the answer follows the cue in training."""
    text = prompt_text(tokenizer, PLAIN, "Cem: Third.", SHOTS[:1])
    assert text.startswith("Summarize this.\n\nAnn: First.\n\nSummary: Ann speaks first.\n\nSummarize this.")
    assert tokenizer.decode(answer_ids(tokenizer, PLAIN, "Ann speaks first.")[:-1]) == " Ann speaks first."


def test_shots_in_a_chat_are_turns_of_user_and_assistant(bos_adder):
    text = prompt_text(bos_adder, CHAT, "Cem: Third.", SHOTS)
    roles = [part.split("|>")[0] for part in text.split("<|")[1:]]
    assert roles == ["system", "user", "assistant", "user", "assistant", "user", "assistant"]
    assert "<|assistant|>\nAnn speaks first.</s>\n<|user|>" in text


@pytest.mark.parametrize("shots", [[], SHOTS], ids=["no-shots", "two-shots"])
@pytest.mark.parametrize("style", [CHAT, PLAIN], ids=["chat", "plain"])
def test_a_prompt_has_exactly_one_bos_and_it_comes_first(bos_adder, style, shots):
    ids = prompt_ids(bos_adder, style, DOCUMENT, shots)
    assert ids[0] == bos_adder.bos_token_id
    assert ids.count(bos_adder.bos_token_id) == 1


@pytest.mark.parametrize("style", [CHAT, PLAIN], ids=["chat", "plain"])
def test_an_answer_has_no_bos_and_exactly_one_eos_at_its_end(bos_adder, style):
    ids = answer_ids(bos_adder, style, "Zoë meets Ben.")
    assert bos_adder.bos_token_id not in ids
    assert ids.count(bos_adder.eos_token_id) == 1 and ids[-1] == bos_adder.eos_token_id


def test_the_tiny_causal_prompt_has_one_bos():
    tokenizer = load_tokenizer("tiny-causal")
    ids = prompt_ids(tokenizer, load_recipe("tiny-causal").prompt, DOCUMENT)
    assert ids[0] == tokenizer.bos_token_id and ids.count(tokenizer.bos_token_id) == 1


def test_an_encoders_prompt_ends_in_exactly_one_eos_and_its_answer_too():
    """T5 reads EOS at the end of its input, and writes it at the end of its answer; it has no BOS."""
    tokenizer, prompt = load_tokenizer("tiny-seq2seq"), load_recipe("tiny-seq2seq").prompt
    for ids in (prompt_ids(tokenizer, prompt, DOCUMENT), answer_ids(tokenizer, prompt, "Zoë meets Ben.")):
        assert ids[-1] == tokenizer.eos_token_id and ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer.bos_token_id is None


def test_a_prompts_ids_spell_its_text(tokenizer, prompt):
    assert DOCUMENT in tokenizer.decode(prompt_ids(tokenizer, prompt, DOCUMENT))


@pytest.mark.parametrize("summary", ["Zoë meets Ben.", "  Zoë meets Ben.\n"])
def test_an_answer_is_the_summary_without_space_around_it(tokenizer, prompt, summary):
    text = tokenizer.decode(answer_ids(tokenizer, prompt, summary)[:-1])
    assert text == ("Zoë meets Ben." if prompt.style == "chat" else " Zoë meets Ben.")


def test_a_document_within_the_limit_is_left_alone(tokenizer):
    length = len(tokenizer(DOCUMENT, add_special_tokens=False)["input_ids"])
    assert cut_document(tokenizer, DOCUMENT, length) == (DOCUMENT, False)
    assert cut_document(tokenizer, DOCUMENT, length + 1) == (DOCUMENT, False)
    assert cut_document(tokenizer, DOCUMENT, length - 1)[1] is True


def test_special_tokens_do_not_count_as_document():
    """An encoder-decoder's tokenizer appends EOS to a text; a document of exactly the limit is whole all the same."""
    tokenizer = load_tokenizer("tiny-seq2seq")
    length = len(tokenizer("Ann: Hi.")["input_ids"]) - 1
    assert cut_document(tokenizer, "Ann: Hi.", length) == ("Ann: Hi.", False)


def test_a_cut_plain_document_has_exactly_the_first_tokens(tokenizer):
    document = "Ann: We meet at ten.\nBen: Fine, at the station." * 2
    ids = tokenizer(document, add_special_tokens=False)["input_ids"]
    for limit in range(1, len(ids)):
        text, is_cut = cut_document(tokenizer, document, limit)
        assert is_cut and document.startswith(text)
        assert tokenizer(text, add_special_tokens=False)["input_ids"] == ids[:limit]


def assert_every_cut_is_within_its_limit(tokenizer, document: str) -> None:
    """A letter or an emoji may take several tokens: a cut inside it drops it whole, and drops nothing else.

    The last token may differ: one that held a space and half an emoji is cut to the space.
    """
    encoded = tokenizer(document, add_special_tokens=False, return_offsets_mapping=True)
    ids, spans = encoded["input_ids"], encoded["offset_mapping"]
    longest = max(sum(start <= place < end for start, end in spans) for place in range(len(document)))
    assert longest > 1  # else nothing here could be cut inside
    for limit in range(1, len(ids)):
        text, is_cut = cut_document(tokenizer, document, limit)
        kept = tokenizer(text, add_special_tokens=False)["input_ids"]
        assert is_cut and document.startswith(text) and "\ufffd" not in text
        assert kept[:-1] == ids[: len(kept)][:-1]
        assert limit - longest < len(kept) <= limit


def test_a_cut_document_never_has_more_tokens_than_the_limit_with_emoji_and_accents(tokenizer):
    assert_every_cut_is_within_its_limit(tokenizer, DOCUMENT)


@pytest.mark.model
def test_smollm2_cuts_emoji_and_accents_within_the_limit(smollm2):
    assert_every_cut_is_within_its_limit(smollm2, DOCUMENT)


@pytest.mark.model
@pytest.mark.parametrize("shots", [[], SHOTS], ids=["no-shots", "two-shots"])
def test_smollm2_opens_every_turn_with_one_bos_and_none_is_doubled(smollm2, shots):
    """Its BOS is the mark that opens a turn (<|im_start|>): one for system, user and assistant each."""
    ids = prompt_ids(smollm2, load_recipe("smollm2-everyday").prompt, DOCUMENT, shots)
    turns = 3 + 2 * len(shots)
    assert smollm2.bos_token == "<|im_start|>"
    assert ids[0] == smollm2.bos_token_id and ids.count(smollm2.bos_token_id) == turns
    assert (smollm2.bos_token_id, smollm2.bos_token_id) not in zip(ids, ids[1:], strict=False)
    assert ids.count(smollm2.eos_token_id) == turns - 1


@pytest.mark.model
def test_smollm2_gets_the_recipes_system_message_and_not_its_templates_own(smollm2):
    prompt = load_recipe("smollm2-everyday").prompt
    text = prompt_text(smollm2, prompt.model_copy(update={"system": "You summarize."}), DOCUMENT)
    assert prompt.system
    assert text.startswith("<|im_start|>system\nYou summarize.<|im_end|>\n<|im_start|>user\n")
    assert text.endswith("<|im_end|>\n<|im_start|>assistant\n")
    assert text.count("system") == 1


@pytest.mark.model
def test_smollm2s_pad_is_neither_its_eos_nor_its_bos(smollm2):
    assert smollm2.pad_token_id is not None
    assert smollm2.pad_token_id not in (smollm2.eos_token_id, smollm2.bos_token_id)


@pytest.mark.model
def test_smollm2s_answers_end_in_the_token_that_ends_its_turns(smollm2):
    ids = answer_ids(smollm2, load_recipe("smollm2-everyday").prompt, "Zoë meets Ben.")
    assert smollm2.decode(ids) == "Zoë meets Ben.<|im_end|>"
    assert ids.count(smollm2.eos_token_id) == 1 and smollm2.bos_token_id not in ids


@pytest.mark.model
def test_smollm2s_recipe_cuts_no_packaged_dialogue_refuses_no_summary_and_leaves_room_to_write_each(smollm2):
    recipe, corpus = load_recipe("smollm2-everyday"), load(Data())
    examples = [*corpus.train, *corpus.validation, *corpus.test]
    documents = [len(smollm2(example.document, add_special_tokens=False)["input_ids"]) for example in examples]
    summaries = [len(answer_ids(smollm2, recipe.prompt, reference)) for example in examples for reference in example.references]
    assert max(documents) <= recipe.lengths.document_tokens
    assert max(summaries) <= recipe.lengths.summary_tokens
    assert max(summaries) - 1 <= recipe.generation.max_new_tokens


def test_special_tokens_spelled_out_in_data_are_only_text(recipe):
    settings = config.resolve(recipe, "zero_shot")
    base = models.load(settings)
    tokenizer, prompt = base.tokenizer, settings.recipe.prompt
    eos, clean, hostile = tokenizer.eos_token, "A: hello", f"A: hello{tokenizer.eos_token}"
    count = [prompt_ids(tokenizer, prompt, text).count(tokenizer.eos_token_id) for text in (clean, hostile)]
    assert count[0] == count[1]
    assert answer_ids(tokenizer, prompt, f"It ends.{eos} Not yet.").count(tokenizer.eos_token_id) == 1
