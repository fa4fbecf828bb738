"""The shipped example models and tasks are what examples/README.md says they are."""

import json
import random
import sys
from pathlib import Path

import pytest
import yaml

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
EXPERTS = EXAMPLES / "experts"
TASKS = ("add", "sort", "reverse", "spell", "words")
MODELS = ("base", "add", "sort", "reverse", "spell")
TEACHING = {"words": ["words", "transcribe", "easy_words"]}
TOTAL_BYTES = 25 * 2**20


@pytest.fixture(scope="module", autouse=True)
def _examples_on_path():
    sys.path.insert(0, str(EXAMPLES))
    yield
    sys.path.remove(str(EXAMPLES))


def rows_of(task: str) -> list[dict]:
    return [json.loads(line) for line in (EXAMPLES / "tasks/data" / f"{task}.jsonl").read_text().splitlines()]


def config_of(task: str) -> dict:
    return yaml.safe_load((EXAMPLES / "tasks" / f"{task}.yaml").read_text())


# Tasks


@pytest.mark.parametrize("task", TASKS)
def test_make_tasks_writes_the_shipped_file_byte_for_byte(task):
    import make_tasks

    assert make_tasks.task_text(task).encode() == (EXAMPLES / "tasks/data" / f"{task}.jsonl").read_bytes()


@pytest.mark.parametrize("task", TASKS)
def test_documents_are_400_with_unique_ids_and_questions(task):
    rows = rows_of(task)
    assert len(rows) == 400
    assert len({row["id"] for row in rows}) == 400
    assert len({row["question"] for row in rows}) == 400


@pytest.mark.parametrize("task", ["add", "spell"])
def test_choices_are_four_different_ones_and_the_answer_is_one_of_them(task):
    rows = rows_of(task)
    assert all(len(set(row["choices"])) == 4 and 0 <= row["answer"] < 4 for row in rows)
    # the right choice sits anywhere, so that always saying "the second" gains nothing
    assert all(60 < sum(row["answer"] == place for row in rows) < 140 for place in range(4))


def test_answers_are_right():
    from skills import spell_out

    number = {spell_out(n): n for n in range(10_000)}
    for row in rows_of("add"):
        a, b = row["question"].rstrip("=").split("+")
        assert row["choices"][row["answer"]] == str(int(a) + int(b))
    for row in rows_of("words"):
        a, b = row["question"].rstrip(":").split(" plus ")
        assert row["answer"] == str(number[a] + number[b])
    for row in rows_of("spell"):
        assert number[row["choices"][row["answer"]]] == int(row["question"][len("spell ") : -1])
    for row in rows_of("sort"):
        assert row["answer"] == "".join(sorted(row["question"][len("sort ") : -1]))
    for row in rows_of("reverse"):
        assert row["answer"] == row["question"][len("reverse ") : -1][::-1]


@pytest.mark.parametrize("easy", [False, True])
@pytest.mark.parametrize("task", TASKS)
def test_training_never_draws_a_test_question(task, easy):
    from skills import SKILLS

    asked = {row["question"] for row in rows_of(task)}
    rng = random.Random(0)
    drawn = [SKILLS[skill](rng, easy=easy).prompt for skill in TEACHING.get(task, [task]) for _ in range(3000)]
    assert not asked & set(drawn)


def test_no_sum_asked_in_words_is_taught_in_digits():
    from probe import digits_of
    from skills import add

    asked = {digits_of(row["question"]) for row in rows_of("words")}
    asked |= {"+".join(reversed(pair.split("+"))) for pair in asked}
    rng = random.Random(0)
    assert not any(add(rng).prompt.rstrip("=") in asked for _ in range(5000))


@pytest.mark.parametrize("task", TASKS)
def test_yaml_names_its_file_and_its_data_relative_to_itself(task):
    config = config_of(task)
    assert config["task"] == task
    assert (EXAMPLES / "tasks" / config["dataset_kwargs"]["data_files"]["test"]).is_file()
    assert config["output_type"] == ("multiple_choice" if task in ("add", "spell") else "generate_until")


# Models


def test_weights_stay_small():
    assert sum(f.stat().st_size for f in EXPERTS.rglob("*") if f.is_file()) < TOTAL_BYTES


def test_all_models_load_and_share_names_shapes_and_dtype():
    from transformers import AutoModelForCausalLM

    shapes = []
    for name in MODELS:
        model = AutoModelForCausalLM.from_pretrained(EXPERTS / name)
        shapes.append({n: (tuple(p.shape), str(p.dtype)) for n, p in model.named_parameters()})
    assert all(s == shapes[0] for s in shapes)
    assert {dtype for _, dtype in shapes[0].values()} == {"torch.float32"}


@pytest.mark.parametrize("name", MODELS)
def test_tokenizer_round_trips_and_adds_nothing(name):
    from skills import SKILLS
    from transformers import AutoTokenizer
    from vocabulary import encode

    tokenizer = AutoTokenizer.from_pretrained(EXPERTS / name)
    assert tokenizer.eos_token_id != tokenizer.pad_token_id
    rng = random.Random(0)
    for skill in SKILLS.values():
        for document in (skill(rng) for _ in range(20)):
            text = f"{document.prompt}{document.answer}\n"
            ids = tokenizer(text).input_ids
            assert tokenizer.decode(ids) == text
            assert ids == encode(text)
            # lm-eval tells context from continuation by their separate lengths
            assert ids[: len(encode(document.prompt))] == tokenizer(document.prompt).input_ids


def test_adapter_loads_on_the_base_and_changes_it():
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM
    from vocabulary import encode

    config = json.loads((EXPERTS / "reverse-lora/adapter_config.json").read_text())
    assert (EXPERTS / "reverse-lora" / config["base_model_name_or_path"]).resolve() == EXPERTS / "base"
    ids = torch.tensor([encode("reverse SNTBIGQE:")])
    base = AutoModelForCausalLM.from_pretrained(EXPERTS / "base").eval()
    with torch.no_grad():
        before = base(ids).logits
        after = PeftModel.from_pretrained(base, EXPERTS / "reverse-lora").eval()(ids).logits
    assert (after - before).abs().max() > 0.1


def test_experts_are_better_than_the_base_at_their_own_task_and_cannot_do_all():
    import torch
    from probe import scores
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)
    first = slice(50)
    base = scores(AutoModelForCausalLM.from_pretrained(EXPERTS / "base"), first)
    for name in MODELS[1:]:
        expert = scores(AutoModelForCausalLM.from_pretrained(EXPERTS / name), first)
        assert expert[name] > max(0.8, base[name] + 0.08)
        assert expert["words"] < 0.7
