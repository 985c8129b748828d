# %% [markdown]
# # 00 · A first look
#
# DeepSeek-OCR draws a text as a picture, turns the picture into a few **vision tokens**, and lets a language model read
# them. In this notebook you watch that once, from the text to the text. It uses `nano`, a small model with the same
# boxes as the official one. Everything runs on a laptop without a GPU.

# %%
import torch
from checks import check
from classroom import TEXT, draw, show

from lightseek.inspect import confidence, observe
from lightseek.page.views import page_views
from lightseek.text.prompts import PROMPTS, prepare
from lightseek.weights.loading import load_model

model = load_model()  # nano
f"{sum(p.numel() for p in model.parameters()) / 1e6:.1f} million parameters; the official model has 3336 million"

# %% [markdown]
# ## A text becomes a page
#
# The letters are drawn as large as they can be. `mode="tiny"` means that the encoder will see 512 x 512 pixels.

# %%
page = draw(TEXT, mode="tiny")
print(page.size, len(TEXT), "characters")
show(page, 260)

# %% [markdown]
# ## The page becomes numbers
#
# `page_views` gives what the encoder sees: `3 x 512 x 512` numbers from -1 (black) to 1 (white). Large pages in the
# `gundam` modes have several views, called tiles. Here there is one.

# %%
views = page_views(page, "tiny")
print(views.global_view.shape, views.global_view.min().item(), views.global_view.max().item())

# %% [markdown]
# ## The page becomes vision tokens
#
# `encode_page` runs the encoder, the projector and the layout. The result has one row for each **position** in the
# decoder's sequence: 8 x 8 = 64 vision tokens, a newline after each of the 8 rows, and a separator at the end. That
# makes 73 rows of 256 numbers, which is the width of nano's decoder.

# %%
with torch.no_grad():
    positions = model.encode_page(views)
positions.shape

# %% [markdown]
# ## The prompt makes room for the page
#
# The prompt is `<image>` and a few words. In the ids, `<image>` becomes 73 image tokens. The model replaces their
# embeddings by the 73 rows from above.

# %%
inputs = prepare(model.config, model.tokenizer, [PROMPTS["ocr"]], [[page]], mode="tiny")
print(repr(PROMPTS["ocr"]))
print(inputs.input_ids.shape, (inputs.input_ids == model.config.image_token_id).sum().item(), "image tokens")

# %% [markdown]
# ## The model reads
#
# `observe` lets the model write, one token at a time, always the most probable one. It also keeps what happened inside.
# nano's tokens are single characters, so it needs as many steps as the text has letters.

# %%
reading = observe(model, page, mode="tiny")
print(reading.text)
print(reading.text == TEXT, "|", len(reading.written), "tokens, the last one is", reading.words[-1])

# %% [markdown]
# How sure was it? White means sure, and red means not sure.

# %%
show(confidence(reading).picture(), 560)

# %% [markdown]
# ## It does not read everything
#
# nano was trained on short plain texts. If we draw four times as much text on the same 64 tokens, the letters get
# smaller and the model fails. How much text fits into a vision token is the question of the whole course.

# %%
MORE = "Please do not feed the cat, who is on a diet. The key hangs behind the red door on the left."
long = " ".join([TEXT, MORE] * 2)
small_letters = draw(long, mode="tiny")
print(observe(model, small_letters, mode="tiny", max_new_tokens=120).text)
show(small_letters, 260)

# %% [markdown]
# ## The forward pass in one call
#
# Training uses `model(input_ids, pages=..., labels=...)`. `logits` has the shape `b n v`: for each of the n positions a
# score for each of the v tokens that may come **next**. `labels` are -100 where the loss does not count, for example on
# the page.

# %%
labels = reading.input_ids.clone()
labels[:, : reading.prompt_length] = -100
with torch.no_grad():
    output = model(reading.input_ids, pages=[[views]], labels=labels)
print(tuple(output.logits.shape), f"loss {output.loss.item():.4f} nats a token")

# %% [markdown]
# ## Exercises
#
# Write the answer in the place of `raise NotImplementedError` and run the cell. The check says what is wrong and why.
#
# **00.1** The *compression ratio* says how many text tokens one vision token carries. Compute it.


# %%
def ratio(text_tokens: int, vision_tokens: int) -> float:
    raise NotImplementedError


check("00.1", ratio)

# %% [markdown]
# **00.2** A batch of prompts is `b n`. Return how many positions each row gives to its page: a tensor of the shape `b`.


# %%
def image_positions(input_ids: torch.Tensor, image_token_id: int) -> torch.Tensor:
    raise NotImplementedError


check("00.2", image_positions)

# %% [markdown]
# **00.3** Compute the loss yourself. `logits` is `b n v` and `labels` is `b n`. The logits at position i are about the
# token at position i + 1, and labels of -100 do not count. The result is the mean cross-entropy, a scalar with
# gradients.


# %%
def shifted_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("00.3", shifted_loss)

# %% [markdown]
# ## Where to go on
#
# 01 looks at the pixels, 02 at the compressor, 03 and 04 at the boxes behind it. 08 asks whether the model reads.
