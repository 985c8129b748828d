"""Small models with random weights: one of ours, and models of transformers in folders like those on the hub."""

import json
from pathlib import Path

import torch
import transformers
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from lightseek.data.sources import synthetic
from lightseek.model.config import ClipConfig, DecoderConfig, OCRConfig, ProjectorConfig, SamConfig
from lightseek.text.tokenizer import Tokenizer as OurTokenizer
from lightseek.weights.loading import LightSeekOCR

END = "<|endoftext|>"
TEXTS = [f"{document.text}\n{document.summary}" for document in synthetic.documents("train", 40)]

SMALL = OCRConfig(
    sam=SamConfig(width=32, layers=2, heads=2, global_blocks=(1,), neck=16),
    compressor=(16, 32),
    clip=ClipConfig(width=32, layers=1, heads=2),
    projector=ProjectorConfig(input_width=64, width=32),
    decoder=DecoderConfig(
        width=32, layers=3, heads=2, dense_width=96, experts=8, chosen=2, shared=1, expert_width=24, vocabulary=1024
    ),
    image_token_id=3,
    dtype="float32",
)


def small_model() -> LightSeekOCR:
    torch.manual_seed(0)
    model = LightSeekOCR(SMALL)
    model.tokenizer = OurTokenizer.nano()
    return model.eval()


def gpt2_folder(folder: Path) -> Path:
    """Write a small GPT-2. It has learned positions, tied embeddings and `Conv1D` layers. Its tokenizer has no BOS and
    no PAD token, like that of `openai-community/gpt2`.
    """
    tokenizer = byte_level(specials=[END])  # END has id 0 here, and the last id in the real tokenizer
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    tokenizer.save(str(made(folder) / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {"model_max_length": 512})
    config = transformers.GPT2Config(
        vocab_size=tokenizer.get_vocab_size(), n_embd=32, n_layer=3, n_head=2, n_positions=512,
        bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    return saved(transformers.GPT2LMHeadModel, config, folder)


def qwen3_folder(folder: Path) -> Path:
    """Write a small Qwen3. Its heads are wider than width / heads, and it has grouped queries. The embedding has rows
    that belong to no token, and the tokenizer has no BOS token.
    """
    tokenizer = byte_level(specials=[])
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.add_special_tokens([AddedToken(token) for token in (END, "<|im_start|>", "<|im_end|>")])
    tokenizer.add_tokens([AddedToken("<think>")])
    tokenizer.save(str(made(folder) / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {
        "tokenizer_class": "Qwen2Tokenizer", "bos_token": None, "eos_token": "<|im_end|>", "pad_token": END,
    })  # fmt: skip
    ids = {token: tokenizer.token_to_id(token) for token in (END, "<|im_end|>")}
    config = transformers.Qwen3Config(
        vocab_size=tokenizer.get_vocab_size() + 9, hidden_size=48, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, head_dim=32, intermediate_size=64, max_position_embeddings=4096,
        bos_token_id=ids[END], eos_token_id=ids["<|im_end|>"], tie_word_embeddings=False,
    )  # fmt: skip
    return saved(transformers.Qwen3ForCausalLM, config, folder)


def bart_folder(folder: Path) -> Path:
    """Write a small BART, which has an encoder and a decoder."""
    tokenizer = byte_level(specials=["<s>", "<pad>", "</s>", "<unk>", "<mask>"])
    tokenizer.save(str(made(folder) / "tokenizer.json"))
    write(folder, "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>",
    })  # fmt: skip
    config = transformers.BartConfig(
        vocab_size=tokenizer.get_vocab_size(), d_model=32, encoder_layers=2, decoder_layers=3, encoder_ffn_dim=64,
        decoder_ffn_dim=64, encoder_attention_heads=2, decoder_attention_heads=2, max_position_embeddings=512,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
        dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, init_std=0.3,
    )  # fmt: skip
    return saved(transformers.BartForConditionalGeneration, config, folder)


def byte_level(specials: list[str]) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    words = Regex(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=specials,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(TEXTS, trainer)
    return tokenizer


def saved(kind: type, config: transformers.PreTrainedConfig, folder: Path) -> Path:
    torch.manual_seed(0)
    kind(config).save_pretrained(folder)
    return folder


def made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def write(folder: Path, name: str, value: object) -> None:
    (folder / name).write_text(json.dumps(value))
