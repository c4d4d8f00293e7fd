"""How often a model answers rightly, operation by operation."""

from collections import defaultdict

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from opd_diag.lab.prompts import ask
from opd_diag.lab.world import Problem, read_answer


def sample_responses(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    questions: list[str],
    *,
    max_new_tokens: int = 48,
    is_greedy: bool = False,
    seed: int = 0,
) -> list[str]:
    """Let a model answer questions at temperature 1, or greedily.

    Returns
    -------
    list of str
        One response a question, without chat markup.
    """
    batch = tokenizer([ask(tokenizer, question) for question in questions], padding=True, return_tensors="pt")
    torch.manual_seed(seed)
    with torch.no_grad():
        ids = model.generate(
            input_ids=batch["input_ids"],
            attention_mask=batch["attention_mask"],
            max_new_tokens=max_new_tokens,
            do_sample=not is_greedy,
            **({} if is_greedy else {"temperature": 1.0, "top_k": 0, "top_p": 1.0}),
        )
    return tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)


def accuracy_by_operation(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    problems: list[Problem],
    *,
    rounds: int = 1,
    is_greedy: bool = False,
    seed: int = 0,
) -> dict[str, float]:
    """Return the share of right answers for each operation.

    Parameters
    ----------
    model, tokenizer : PreTrainedModel, PreTrainedTokenizerBase
        The model to examine.
    problems : list of Problem
        What it is asked.
    rounds : int
        How often each problem is asked; more than one makes sense only when sampling.
    is_greedy : bool
        Take the most probable token instead of sampling at temperature 1.
    seed : int
        Of the sampling.

    Returns
    -------
    dict of str to float
        Operation to accuracy in [0, 1].
    """
    asked = problems * rounds
    questions = [problem.question for problem in asked]
    responses = sample_responses(model, tokenizer, questions, is_greedy=is_greedy, seed=seed)
    hits = defaultdict(list)
    for problem, response in zip(asked, responses, strict=True):
        hits[problem.operation].append(read_answer(response) == problem.answer)
    return {operation: sum(hits[operation]) / len(hits[operation]) for operation in sorted(hits)}
