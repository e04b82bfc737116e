"""Saves a tiny Llama of random weights that samples: `server_model.py FOLDER`."""

import sys
from pathlib import Path
from typing import Any

import torch
import transformers

from fgvalidate.builtin.tokenizer import END_OF_TEXT, PADDING, load_tokenizer


def main(folder: Path) -> None:
    """Writes what a server needs: config, weights, generation config and a byte-level tokenizer."""
    # Their signatures are not typed in all versions.
    library: Any = transformers
    core = load_tokenizer(["Once upon a time there was a little dog."], 280)
    tokenizer = library.PreTrainedTokenizerFast(tokenizer_object=core, eos_token=END_OF_TEXT, pad_token=PADDING)
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    config = library.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=128,
        bos_token_id=None,
        **special,
    )
    torch.manual_seed(0)
    model = library.LlamaForCausalLM(config)
    model.generation_config = library.GenerationConfig(do_sample=True, **special)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
