"""A model reads a page, and everything that happened is kept: the start of every look inside.

    reading = observe(model, Image.open("page.png"), mode="small")
    reading.text                            # what the model wrote
    attention_on_page(reading)              # attention.py: where it looked
    lens(reading), confidence(reading)      # logits.py: what each layer would say, and how sure it is

The model first writes its text as always. Then one more pass runs over the prompt and the whole text at once. By the
causal mask it computes the same as the steps of generation did, and in it every layer can be seen (`Pass`).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor, nn

from lightseek.inspect.places import Place, image_places
from lightseek.inspect.recorder import first_tensor
from lightseek.model.attention import attention_maps
from lightseek.model.decoders.hf import HFDecoder
from lightseek.model.moe import Routing
from lightseek.model.ocr import DeepSeekOCR
from lightseek.page.modes import Mode, find_mode
from lightseek.page.pictures import upright_rgb
from lightseek.page.views import PageViews, image_positions, page_views
from lightseek.text.generate import NgramGuard, evaluating, generate, the_tokenizer
from lightseek.text.kinds import PROMPTS
from lightseek.text.prompts import prompt_ids


@dataclass(frozen=True, eq=False)
class Pass:
    """What one pass over a prompt and its text computed. n is the number of positions, and L that of the layers."""

    hidden: Float[Tensor, "L n d"]  # after each decoder layer, before the final norm
    attention: Float[Tensor, "L h n n"]  # row i: how much position i looks at each position up to itself; sums to 1
    logits: Float[Tensor, "n v"]  # of the token after each position
    routing: list[Routing]  # one per mixture-of-experts layer


@dataclass(eq=False)
class Reading:
    """A page, what the model wrote about it, and how. `observe` makes it."""

    model: DeepSeekOCR
    picture: Image.Image  # the page, upright, before it was fitted to the mode
    views: PageViews
    mode: Mode
    input_ids: Int[Tensor, "1 n"]  # the prompt and then the text
    prompt_length: int  # positions
    places: list[Place]  # of the image's positions, in order
    finish_reason: str  # "eos", "length", or "given" for a text that the model did not write

    @property
    def written(self) -> list[int]:
        """The tokens of the text. The stop token is the last one if the model ended the text itself."""
        return self.input_ids[0, self.prompt_length :].tolist()

    @property
    def words(self) -> list[str]:
        """The tokens of the text as strings."""
        return [token_text(self.model, token) for token in self.written]

    @property
    def text(self) -> str:
        return the_tokenizer(self.model).decode(self.written, keep_special=False)

    @property
    def image_positions(self) -> Int[Tensor, " p"]:
        """The positions of the image in the sequence. `places` says what each of them stands for."""
        return (self.input_ids[0] == self.model.config.image_token_id).nonzero()[:, 0]

    @property
    def predicting(self) -> slice:
        """The positions whose outputs are the tokens of the text: each one is the position before its token."""
        return slice(self.prompt_length - 1, self.input_ids.shape[1] - 1)

    @cached_property
    def seen(self) -> Pass:
        """The pass over the prompt and the text. It is computed once, at the first use."""
        return one_pass(self.model, self.input_ids, self.views)


def observe(
    model: DeepSeekOCR,
    picture: Image.Image,
    mode: str | int | Mode = "base",
    prompt: str = PROMPTS["ocr"],
    text: str | None = None,
    max_new_tokens: int = 512,
    no_repeat_ngram: NgramGuard | int | None = None,
) -> Reading:
    """Let the model read a page greedily and return its `Reading`.

    With `text`, the model does not write: the reading is that of the given text, as if the model had written it.
    The guard against repetition is that of `read` unless another one is given; 0 switches it off.
    Raises ValueError for a model without a tokenizer, and as `generate` does.
    """
    tokenizer, picture = the_tokenizer(model), upright_rgb(picture)
    views = page_views(picture, mode)
    if text is not None:
        return reread(model, picture, views, mode, prompt, tokenizer.encode(text), "given")
    ids = torch.tensor([prompt_ids(model.config, tokenizer, prompt, [image_positions(views, model.config.arithmetic)])])
    guard = NgramGuard.default(tokenizer) if no_repeat_ngram is None else no_repeat_ngram
    (found,) = generate(model, ids, [[views]], max_new_tokens=max_new_tokens, no_repeat_ngram=guard)
    return reread(model, picture, views, mode, prompt, found.tokens, found.finish_reason)


def reread(
    model: DeepSeekOCR,
    picture: Image.Image,
    views: PageViews,
    mode: str | int | Mode,
    prompt: str,
    tokens: list[int],
    finish_reason: str,
) -> Reading:
    """Return the `Reading` of a text that was written before, such as the tokens of a `Generation`.

    The stop token is added if the finish reason is "eos". Raises ValueError for a text without tokens.
    """
    where = image_places(views, mode, picture.size, model.config.arithmetic)
    before = prompt_ids(model.config, the_tokenizer(model), prompt, [len(where)])
    written = [*tokens, *([model.config.eos_token_id] if finish_reason == "eos" else [])]
    if not written:
        raise ValueError("there is nothing to look at: the text has no tokens")
    ids = torch.tensor([before + written])
    return Reading(model, picture, views, find_mode(mode), ids, len(before), where, finish_reason)


@torch.inference_mode()
def one_pass(model: DeepSeekOCR, input_ids: Int[Tensor, "1 n"], views: PageViews) -> Pass:
    """Run the model once over a whole sequence, and keep the states and the attention of each decoder layer."""
    layers = list(model.decoder.layers)
    hidden: list[Tensor] = []
    with evaluating(model), hooked(layers, lambda output: hidden.append(first_tensor(output)[0])):
        x = model.embed(input_ids.to(model.device), [[views]])
        with decoder_attention(model) as maps:
            final, routing = model.decoder(x)
    return Pass(torch.stack(hidden), torch.stack(maps)[:, 0], model.decoder.logits(final)[0], routing)


@contextmanager
def decoder_attention(model: DeepSeekOCR) -> Iterator[list[Float[Tensor, "1 h n m"]]]:
    """Collect the attention maps of the decoder's layers, for our decoder and for one of transformers."""
    decoder, maps = model.decoder, []
    if not isinstance(decoder, HFDecoder):
        with attention_maps(decoder) as found:
            yield maps
        maps += [found[f"layers.{index}.attention"] for index in range(len(decoder.layers))]
        return
    before = decoder.model.config._attn_implementation
    decoder.set_attention("eager")  # transformers returns its maps with this core only
    try:
        attentions = [next(m for name, m in layer.named_children() if "attn" in name) for layer in decoder.layers]
        handles = [m.register_forward_hook(lambda _, __, output: maps.append(output[1])) for m in attentions]
        yield maps
        for handle in handles:
            handle.remove()
    finally:
        decoder.model.set_attn_implementation(before)


@contextmanager
def hooked(modules: list[nn.Module], keep) -> Iterator[None]:
    """Call `keep(output)` after each pass of each module, inside the `with` block."""
    handles = [module.register_forward_hook(lambda _, __, output: keep(output)) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def token_text(model: DeepSeekOCR, token: int) -> str:
    """Return one token as a string. A special token keeps its name."""
    return the_tokenizer(model).decode([token], keep_special=True)
