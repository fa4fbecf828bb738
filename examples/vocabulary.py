"""The tokenizer of the example models: a small closed vocabulary of number words, letters, digits and signs.

Text is cut into known words and single characters and nothing is dropped, spaces included, so decoding what was encoded
gives the same text back. No token is put before or after the text.
"""

from __future__ import annotations

import re

from skills import LETTERS, NUMBER_WORDS
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, END, UNKNOWN = "<pad>", "<eos>", "<unk>"
COMMANDS = ("sort", "reverse", "spell", "plus")
WORDS = (*NUMBER_WORDS, *COMMANDS)
TOKENS = (PAD, END, UNKNOWN, "\n", " ", "+", "=", ":", *"0123456789", *LETTERS, *WORDS)
IDS = {token: i for i, token in enumerate(TOKENS)}

# Longest first: "sixteen" must not be cut into "six" and "teen".
_PIECE = "|".join(sorted(WORDS, key=len, reverse=True)) + r"|[\s\S]"


def encode(text: str) -> list[int]:
    """Return the token ids of `text`; the same as the tokenizer's, without its overhead. For training."""
    return [IDS[piece] for piece in re.findall(_PIECE, text)]


def tokenizer() -> PreTrainedTokenizerFast:
    """Return the tokenizer in the form that `AutoTokenizer` loads."""
    cut = Tokenizer(models.WordLevel(IDS, unk_token=UNKNOWN))
    cut.pre_tokenizer = pre_tokenizers.Split(Regex(_PIECE), behavior="isolated")
    cut.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=cut,
        pad_token=PAD,
        eos_token=END,
        unk_token=UNKNOWN,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=128,
    )
