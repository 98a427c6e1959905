"""`ask: written`: multiple choice in words, for models that only chat."""

from __future__ import annotations

from typing import Any

from .values import Fault

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def written_rows(task: Any, name: str, limit: int | None, options: dict[str, Any]) -> Any:
    """Multiple choice as a question in words, with the choices lettered: no number of lm_eval's."""
    if task.OUTPUT_TYPE != "multiple_choice":
        raise Fault(
            f"ask: written is for multiple-choice tasks, and {name} is {task.OUTPUT_TYPE}", "Leave 'ask' out."
        )
    shots = int(task.get_config("num_fewshot") or 0)
    for doc_id, doc in task.doc_iterator(limit=limit):
        messages = []
        head = "\n\n".join(part.strip() for part in (options.get("system"), _description(task, doc)) if part)
        if head:
            messages.append({"role": "system", "content": head})
        split = getattr(getattr(task, "fewshot_cfg", None), "split", None)
        own = doc if split is not None and split == task.get_config("test_split") else None
        for shot in task.sampler.sample(n=shots, eval_doc=own) if shots else ():
            question, choices, gold = _lettered(task, shot)
            messages += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": LETTERS[gold[0]] if gold else ""},
            ]
        question, choices, gold = _lettered(task, doc)
        messages.append({"role": "user", "content": question})
        target = [LETTERS[at] for at in gold]
        yield (
            doc_id,
            doc,
            target[0] if len(target) == 1 else target,
            [{"type": "written", "args": [messages]}],
            choices,
        )


def _description(task: Any, doc: Any) -> str:
    resolve = getattr(task, "resolve_field", None)
    text = task.get_config("description")
    return str(resolve(doc, text) or "") if callable(resolve) else str(text or "")


def _lettered(task: Any, doc: Any) -> tuple[str, list[str], list[int]]:
    """A question with its choices under letters, the choices, and the places of the right ones."""
    text, choices, gold = (
        task.doc_to_text(doc),
        [str(each) for each in task.doc_to_choice(doc)],
        task.doc_to_target(doc),
    )
    if getattr(task, "multiple_input", False) or isinstance(text, int):
        # One context a choice and the same ending: the contexts are the choices.
        gold, text, choices = text, f"Which one goes best before: {gold}", choices
    if len(choices) > len(LETTERS):
        raise Fault(f"a document has {len(choices)} choices, more than there are letters")
    golds = [gold] if isinstance(gold, int | str) else list(gold)
    places = [each if isinstance(each, int) else choices.index(each) for each in golds]
    lines = "\n".join(f"{letter}. {choice.strip()}" for letter, choice in zip(LETTERS, choices, strict=False))
    last = f"Answer with the letter of the right choice (A to {LETTERS[len(choices) - 1]}) and nothing else."
    return f"{str(text).strip()}\n\n{lines}\n\n{last}", choices, places
