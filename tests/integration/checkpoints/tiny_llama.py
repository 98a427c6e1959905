"""A Llama of two layers with a tokenizer of one token a word, trained by the Hugging Face Trainer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

WORDS = [f"w{number}" for number in range(58)]
SPECIAL = ["<pad>", "<s>", "</s>", "<unk>", "user", "assistant"]
LENGTH = 16
TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}"
    "{% if add_generation_prompt %}assistant{% endif %}"
)


def sentences(count: int, seed: int) -> list[str]:
    """Texts in which each word is mostly followed by one certain other: there is something to learn."""
    import random

    draw = random.Random(seed)
    texts = []
    for _ in range(count):
        at, words = draw.randrange(len(WORDS)), []
        for _ in range(LENGTH):
            words.append(WORDS[at])
            at = (at * 7 + 3) % len(WORDS) if draw.random() < 0.9 else draw.randrange(len(WORDS))
        texts.append(" ".join(words))
    return texts


def tokenizer() -> Any:
    """Words at white space, no token before the text."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: at for at, word in enumerate([*SPECIAL, *WORDS])}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=made, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    fast.chat_template = TEMPLATE
    return fast


def model(seed: int = 0) -> Any:
    """Two layers, width 32, 64 tokens."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(seed)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=64,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=128,
            tie_word_embeddings=True,
            pad_token_id=0,
            bos_token_id=1,
            eos_token_id=2,
        )
    )


def train(folder: Path, steps: int = 60, every: int = 20, rate: float = 3e-3) -> tuple[list[str], Any]:
    """Train into a folder, a checkpoint each so many steps. The texts of the evaluation, and the Trainer."""
    import torch
    from transformers import Trainer, TrainingArguments, default_data_collator

    torch.set_num_threads(1)
    cut = tokenizer()

    def rows(texts: list[str]) -> list[dict[str, Any]]:
        return [{"input_ids": (ids := cut(text)["input_ids"]), "labels": ids} for text in texts]

    held_out = sentences(32, seed=1)
    trainer = Trainer(
        model=model(),
        args=TrainingArguments(
            output_dir=str(folder),
            max_steps=steps,
            per_device_train_batch_size=16,
            per_device_eval_batch_size=32,
            learning_rate=rate,
            logging_steps=10,
            save_steps=every,
            eval_strategy="steps",
            eval_steps=every,
            report_to=[],
            seed=0,
            use_cpu=True,
            disable_tqdm=True,
            dataloader_num_workers=0,
        ),
        train_dataset=rows(sentences(512, seed=0)),
        eval_dataset=rows(held_out),
        data_collator=default_data_collator,
        processing_class=cut,
    )
    trainer.train()
    return held_out, trainer
