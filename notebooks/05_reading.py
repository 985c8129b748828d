# %% [markdown]
# # 05 · Reading: prefill, cache, greedy, loops and the guard
#
# The decoder gives scores for one next token. To read a page, it must be asked again and again. This notebook builds
# that loop, makes it fast, and looks at what goes wrong in it.

# %%
import time

import torch
from checks import check
from classroom import TEXT, draw, show
from PIL import Image, ImageDraw

from lightseek.text.generate import NgramGuard, generate, read
from lightseek.text.prompts import PROMPTS, prepare
from lightseek.weights.loading import load_model

model = load_model()
page = draw(TEXT, "tiny")
inputs = prepare(model.config, model.tokenizer, [PROMPTS["ocr"]], [[page]], mode="tiny")
inputs.input_ids.shape  # BOS, 73 positions of the page, the words of the prompt

# %% [markdown]
# ## The slow way
#
# Take the most probable token, append it, and run everything again. That is *greedy decoding*. Each step encodes the
# page again and computes all positions again.

# %%
ids, began = inputs.input_ids, time.perf_counter()
with torch.inference_mode():
    for _ in range(12):
        logits = model(ids, pages=inputs.pages, logits="last").logits  # 1 1 v
        ids = torch.cat([ids, logits[:, -1].argmax(-1, keepdim=True)], dim=1)
slow = (time.perf_counter() - began) / 12
print(repr(model.tokenizer.decode(ids[0, inputs.input_ids.shape[1] :].tolist())))

# %% [markdown]
# ## Prefill and cache
#
# A position's keys and values do not depend on what comes after it, because attention is causal. So we keep them. The
# first pass (*prefill*) fills the cache with the page and the prompt. Each later pass computes one position.

# %%
began = time.perf_counter()
with torch.inference_mode():
    cache = model.decoder.new_cache(1, 200, model.dtype, model.device)
    logits = model(inputs.input_ids, pages=inputs.pages, cache=cache, logits="last").logits
    print("after the prefill the cache holds", cache.length, "positions")
    prefill, began, written = time.perf_counter() - began, time.perf_counter(), []
    for _ in range(12):
        written.append(logits[0, -1].argmax().item())
        logits = model(torch.tensor([[written[-1]]]), cache=cache, logits="last").logits
fast = (time.perf_counter() - began) / 12
print(repr(model.tokenizer.decode(written)), "| positions now:", cache.length)
print("the cached step is faster:", fast < slow)

# %% [markdown]
# The text is the same. The cache costs memory: keys and values, for each layer, head and position.

# %%
print("keys of one layer:", tuple(cache.keys[0].shape), "= b h capacity k")
print(f"{2 * len(cache.keys) * cache.keys[0][:, :, : cache.length].nbytes / 1e3:.0f} kB for {cache.length} positions")

# %% [markdown]
# ## `generate`
#
# does this for batches, with padding on the left, and stops at EOS.

# %%
(found,) = generate(model, inputs.input_ids, inputs.pages, inputs.mask, max_new_tokens=120)
print(found.text, "|", found.finish_reason, "| log-probability", round(found.logprob, 2))

# %% [markdown]
# ## Loops
#
# On a page that it cannot read, a model may go into a loop: it writes the same again and again, because after the same
# signs the same sign is the most probable one. Here is a page with nothing but lines. nano has never seen one.

# %%
strange = Image.new("RGB", (512, 512), "white")
for y in range(20, 500, 12):
    ImageDraw.Draw(strange).line((10, y, 500, y), fill="black", width=3)
looping = read(model, strange, mode="tiny", max_new_tokens=200, no_repeat_ngram=None)[0]
print(len(looping.tokens), "tokens:", looping.text)
show(strange, 200)

# %% [markdown]
# ## The guard
#
# The official code forbids that any 20 tokens come a second time: an *n-gram guard*. nano's tokens are characters, so
# its default is 80, and here it does nothing yet. With 20, it breaks the runs. The price of a guard: true repetitions
# on a page, such as the lines of a table, are cut too.

# %%
for size in (80, 20):
    guarded = read(model, strange, mode="tiny", max_new_tokens=200, no_repeat_ngram=NgramGuard(size))[0]
    print(size, guarded.text)

# %% [markdown]
# ## Exercises
#
# **05.1** Write greedy decoding. `step(ids)` takes a list of tokens and returns the scores `v` of the next one. Return
# the new tokens, without the stop token `eos`, and at most `limit` of them.


# %%
def greedy(step, prompt: list[int], eos: int, limit: int) -> list[int]:
    raise NotImplementedError


check("05.1", greedy)

# %% [markdown]
# **05.2** How many positions does the decoder compute to write `new` tokens after a prompt of `prompt` positions? The
# last token is not put in again. Without a cache, each pass computes all positions so far.


# %%
def computed(prompt: int, new: int, cache: bool) -> int:
    raise NotImplementedError


check("05.2", computed)

# %% [markdown]
# **05.3** How many bytes does the cache of one row need?


# %%
def cache_bytes(layers: int, heads: int, head_width: int, positions: int, bytes_per_number: int) -> int:
    raise NotImplementedError


check("05.3", cache_bytes)

# %% [markdown]
# **05.4** The guard: return the set of tokens that must not come next, so that no n-gram occurs twice in `tokens`.


# %%
def banned(tokens: list[int], n: int) -> set[int]:
    raise NotImplementedError


check("05.4", banned)
