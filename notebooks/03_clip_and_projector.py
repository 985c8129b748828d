# %% [markdown]
# # 03 · CLIP, the join and the projector
#
# After the compressor there are few tokens, so full attention over the whole page is cheap. That is CLIP's part. Then
# CLIP's features and the compressor's are joined, brought to the decoder's width, and laid out as a sequence.

# %%
import torch
from checks import check
from classroom import OTHER_TEXT, TEXT, draw, show
from matplotlib.figure import Figure

from lightseek.inspect import attention_in_encoder, intervene, observe, stage_picture
from lightseek.page.views import page_views
from lightseek.weights.loading import load_model

model = load_model()
clip = model.encoder.clip
views = page_views(draw(TEXT, "tiny"), "tiny")
with torch.no_grad():
    local = model.encoder.compressor(model.encoder.sam(views.global_view[None].to(model.dtype)))
local.shape  # b d r r

# %% [markdown]
# ## A class token in front
#
# CLIP was trained to compare pictures with captions. For that it has a *class token*, whose state stands for the whole
# picture. It comes first: 64 tokens become 65. CLIP's own patch convolution is not used, because the compressor's
# features take its place.

# %%
with torch.no_grad():
    embedded = clip.embeddings(local)
    tokens = clip(local)
print("with class token and positions", tuple(embedded.shape), " after CLIP", tuple(tokens.shape))

# %% [markdown]
# ## Each token sees the page
#
# In contrast to SAM's windows, each of CLIP's tokens looks at all others. The strongest place on a page always has the
# full colour. So read the share of the class token too: in block 0 it is nearly everything, and little is left for the
# red square.

# %%
reading = observe(model, draw(TEXT, "tiny"), mode="tiny")
figure = Figure(figsize=(7, 2.5), layout="constrained")
for axes, block in zip(figure.subplots(1, 3), range(3), strict=True):
    found = attention_in_encoder(reading, f"encoder.clip.blocks.{block}", at=(1, 2))
    axes.imshow(found.picture())
    axes.set_title(f"block {block}\n{found.outside:.0%} on the class token", fontsize=8)
    axes.axis("off")
show(figure)

# %% [markdown]
# ## The join
#
# The class token is dropped. Then the channels of CLIP and those of the compressor are put side by side, so a token has
# 256 + 256 = 512 numbers (officially 1024 + 1024). The compressor's features thus reach the decoder in two ways:
# through CLIP and around it.

# %%
with torch.no_grad():
    joined = model.encoder(views.global_view[None].to(model.dtype))
print(tuple(joined.shape), torch.allclose(joined[..., :256], tokens[:, 1:]), "| CLIP's channels come first")

# %% [markdown]
# ## The projector
#
# One linear layer brings 512 channels to the decoder's width of 256.

# %%
with torch.no_grad():
    projected = model.projector(joined)
print(tuple(projected.shape), model.projector)

# %% [markdown]
# ## The layout
#
# The 8 x 8 tokens become a sequence, row by row. A learned vector *newline* follows each row, and a *separator* ends
# the image: 8 x 9 + 1 = 73 positions. A decoder that knows sequences can so find out how wide the page is.

# %%
with torch.no_grad():
    sequence = model.layout(projected[0])
newline = model.layout.newline.to(sequence.dtype)
print(tuple(sequence.shape), "newlines at", [i for i, row in enumerate(sequence) if torch.equal(row, newline)])

# %% [markdown]
# ## Is CLIP needed?
#
# We take CLIP's features away, or those that go around it, by setting half of the projector's input to zero.

# %%
half = joined.shape[-1] // 2


def without(first: bool):
    def edit(tokens: torch.Tensor, run: int) -> torch.Tensor:
        changed = tokens.clone()
        changed[..., :half] = 0 if first else changed[..., :half]
        changed[..., half:] = changed[..., half:] if first else 0
        return changed

    return edit


for name, edit in {"without CLIP": without(True), "without the way around": without(False)}.items():
    with intervene(model, "encoder.concat", edit):
        print(f"{name:24}", repr(observe(model, draw(OTHER_TEXT, "tiny"), mode="tiny", max_new_tokens=60).text))

# %% [markdown]
# Without CLIP, some words of the page come back, and the model loses its place. Without the way around, no word of the
# page is left. So nano's letters seem to go around CLIP. Whether that holds for the official model is a question for
# its weights. A fair test trains each kind: `python ablate.py --global-stage clip clip-only compressor-only`.

# %%
figure = Figure(figsize=(6, 2.4), layout="constrained")
for axes, stage in zip(
    figure.subplots(1, 3), ("encoder.compressor", "encoder.clip.blocks.2", "projector"), strict=True
):
    axes.imshow(stage_picture(reading, stage))
    axes.set_title(stage, fontsize=8)
    axes.axis("off")
show(figure)

# %% [markdown]
# ## Exercises
#
# **03.1** Put a class token in front: `features` is `b d r r`, and `first` is a vector of d numbers. Return
# `b 1+r*r d`, row by row.


# %%
def with_class_token(features: torch.Tensor, first: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("03.1", with_class_token)

# %% [markdown]
# **03.2** Join CLIP's tokens `b 1+t d` and the compressor's `b t e` to `b t d+e`.


# %%
def join(clip_tokens: torch.Tensor, local_tokens: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("03.2", join)

# %% [markdown]
# **03.3** CLIP's activation is x · sigmoid(1.702 x), an approximation of GELU.


# %%
def quick_gelu(x: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("03.3", quick_gelu)

# %% [markdown]
# **03.4** Lay out the tokens `t d` of a square view: after each row the vector `newline`, at the end `separator`.


# %%
def lay_out(tokens: torch.Tensor, newline: torch.Tensor, separator: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("03.4", lay_out)
