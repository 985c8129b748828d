# %% [markdown]
# # 11 · Look inside
#
# Where did the model look while it wrote this letter? What does a vision token "say"? What would the model have written
# without this stage? Each question is a function of `lightseek.inspect`. They work with nano and with the official
# checkpoint. The same is in the browser: `python -m lightseek inspect`.

# %%
import torch
from checks import check
from classroom import OTHER_TEXT, TEXT, draw, show

from lightseek.inspect import (
    attention_in_encoder,
    attention_on_page,
    attribution,
    confidence,
    intervene,
    lens,
    observe,
    patching,
)
from lightseek.weights.loading import load_model

model = load_model()
page = draw(TEXT, "tiny")
reading = observe(model, page, mode="tiny")
reading.text

# %% [markdown]
# ## Where did it look?
#
# `weights` is `tokens n`: for each token of the text, how much each position before it was looked at. A row sums to 1.
# We take the L of "library", in the layer and head that look at the page most.

# %%
layer, head = max(
    ((layer, head) for layer in range(4) for head in range(4)),
    key=lambda at: attention_on_page(reading, *at).share.mean().item(),
)
found = attention_on_page(reading, layer, head)
letter = reading.text.index("library")
print(
    f"layer {layer}, head {head}: {found.share.mean():.0%} of its attention is on the page; weights",
    found.weights.shape,
)
show(found.picture(letter), 300)

# %% [markdown]
# The same for "noon" at the end. The map follows the text.

# %%
show(found.picture(reading.text.index("noon")), 300)

# %% [markdown]
# ## Inside the encoder
#
# Block 0 of SAM attends within windows of 8 x 8 patches, so everything outside the window is zero. Block 3 attends to
# the whole page. The patch in row 5, column 9 asks.

# %%
show(attention_in_encoder(reading, "encoder.sam.blocks.0", at=(5, 9)).picture(), 240)

# %%
show(attention_in_encoder(reading, "encoder.sam.blocks.3", at=(5, 9)).picture(), 240)

# %% [markdown]
# ## What would each layer say?
#
# The *logit lens* applies the final norm and the output head to a state in the middle. After the last layer that is the
# model's output. Here are the first candidates for the first ten letters.

# %%
says = lens(reading)
for layer in range(4):
    row = [says.says(layer, position)[0][0] for position in range(reading.prompt_length - 1, reading.prompt_length + 9)]
    print("layer", layer, row)

# %% [markdown]
# The page's own positions say something too. Earlier layers were not trained for this, so read it as a hint only.

# %%
show(says.picture(layer=3), 300)

# %% [markdown]
# ## How sure was it?

# %%
rows = confidence(reading).rows()
for row in sorted(rows, key=lambda row: row["probability"])[:3]:
    print(row)

# %% [markdown]
# ## What if?
#
# Attention says where a layer took information from. It does not say that the output depends on it. For that, change
# something and look again. Here the layout's output is set to zero: the model is blind and still writes.

# %%
with intervene(model, "layout", "zero"):
    print("blind:   ", repr(observe(model, page, mode="tiny", max_new_tokens=60).text))
with intervene(model, "encoder.clip", "average"):
    print("no CLIP: ", repr(observe(model, page, mode="tiny", max_new_tokens=100).text))

# %% [markdown]
# ## Which stage carries the text?
#
# Activation patching: the model sees **another** page, but one stage's output is taken from the right page. The score
# says how much of the text's log-probability comes back: 1 is everything, 0 is nothing.

# %%
other = observe(model, draw(OTHER_TEXT, "tiny"), mode="tiny", max_new_tokens=1).views
stages = ["encoder.sam", "encoder.compressor", "encoder.clip", "projector", "layout"]
stages += [f"decoder.layers.{layer}" for layer in range(4)]
scores = patching(reading, other, stages)
show(scores.picture(), 520)

# %% [markdown]
# SAM, the compressor and the projector carry everything, because all that comes later is made from them. CLIP carries
# little: the compressor's features also go around it. The decoder's image positions carry the text until the middle
# layers. After the last layer they carry nothing: by then the text's positions have taken over what they need.
#
# ## Which pixels speak for a letter?
#
# Gradient times input, for each patch. Red speaks for the letter, blue against it.

# %%
show(attribution(reading, letter).picture(), 300)

# %% [markdown]
# ## Exercises
#
# **11.1** `weights` is `tokens n`, and each row sums to 1. `image_positions` has the numbers of the image's positions.
# Return the share of each token's attention that falls on the image.


# %%
def share(weights: torch.Tensor, image_positions: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("11.1", share)

# %% [markdown]
# **11.2** The rollout of `L n n` maps: mix each map half and half with the identity (for the residual path), and
# multiply them, so that the last layer's map stands on the left.


# %%
def rollout(maps: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("11.2", rollout)

# %% [markdown]
# **11.3** The logit lens: from a state `n d`, the final `norm` and the output `head` (both are functions) to
# probabilities `n v`.


# %%
def logit_lens(state: torch.Tensor, norm, head) -> torch.Tensor:
    raise NotImplementedError


check("11.3", logit_lens)

# %% [markdown]
# **11.4** The score of activation patching, from three log-probabilities: of the patched pass, from the text's own page
# (`clean`), and from the other page (`corrupt`).


# %%
def score(patched: float, clean: float, corrupt: float) -> float:
    raise NotImplementedError


check("11.4", score)

# %% [markdown]
# **11.5** The entropy in nats of the distribution of each row of `logits` (`n v`). Some logits may be `-inf`: such
# tokens are impossible, and 0 · log 0 counts as 0.


# %%
def entropy(logits: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("11.5", entropy)
