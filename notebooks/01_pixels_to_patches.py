# %% [markdown]
# # 01 · Pixels to patches: SAM, windows and relative position
#
# The first box of the encoder is SAM. It cuts the page into patches of 16 x 16 pixels and lets them look at each other.
# A page of 1024 x 1024 pixels has 4096 patches, so this must be cheap. Two ideas make it so: small windows in most
# blocks, and the compressor behind it (notebook 02).

# %%
import torch
from checks import check
from classroom import TEXT, draw, show
from matplotlib.figure import Figure

from lightseek.inspect import attention_in_encoder, observe, stage_picture
from lightseek.model.sam import from_windows, offset_vectors, to_windows
from lightseek.page.views import page_views
from lightseek.weights.loading import load_model

model = load_model()
sam = model.encoder.sam
views = page_views(draw(TEXT, "tiny"), "tiny")
pixels = views.global_view[None].to(model.dtype)
pixels.shape  # b 3 s s

# %% [markdown]
# ## Patches
#
# Official SAM has one convolution with a kernel and a stride of 16. nano has four small convolutions of stride 2 in its
# place, because a small model learns letters more easily that way. Both give one vector for each patch: `b g g d` with
# g = 512 / 16 = 32.

# %%
with torch.no_grad():
    patches = sam.patch_embed(pixels).permute(0, 2, 3, 1)
print(patches.shape)
sam.patch_embed

# %% [markdown]
# ## Absolute position
#
# A patch does not know where it is. So a learned vector is added, one for each place. They are stored for a grid of
# 64 x 64 (1024 pixels) and resized for other pages.

# %%
with torch.no_grad():
    placed = sam.position(patches)
print("stored", tuple(sam.position.weight.shape), " patches", tuple(placed.shape))

# %% [markdown]
# ## Windows
#
# In most blocks a patch sees only its window: 8 x 8 patches in nano, 14 x 14 officially. `to_windows` puts the windows
# into the batch, so that ordinary attention can run on each of them.

# %%
windows = to_windows(placed, 8)
print(tuple(placed.shape), "->", tuple(windows.shape), " back:", torch.equal(from_windows(windows, 32), placed))

# %% [markdown]
# A grid that is no multiple of the window is filled up with zeros. That happens at the official size: 64 patches need
# 5 windows of 14.

# %%
print(to_windows(torch.zeros(1, 64, 64, 3), 14).shape, "= 25 windows, and 70 x 70 places for 64 x 64 patches")

# %% [markdown]
# The number of pairs shows what windows save. Each head compares every pair.

# %%
for name, pairs in {"whole page": (64 * 64) ** 2, "windows of 14": 25 * (14 * 14) ** 2}.items():
    print(f"{name:14} {pairs:>12,} pairs")

# %% [markdown]
# ## What a patch looks at
#
# Left: a block with windows. Right: the last block, in which each patch sees the whole page.

# %%
reading = observe(model, draw(TEXT, "tiny"), mode="tiny", max_new_tokens=2)
figure = Figure(figsize=(6.4, 3.2), layout="constrained")
for axes, block in zip(figure.subplots(1, 2), (0, 3), strict=True):
    axes.imshow(attention_in_encoder(reading, f"encoder.sam.blocks.{block}", at=(5, 9)).picture())
    axes.set_title(f"block {block}, patch (5, 9)")
    axes.axis("off")
show(figure)

# %% [markdown]
# ## Relative position
#
# The attention of a block also gets a number for how far apart two patches are, down and across. It comes from the
# query and a learned vector for each offset from -(g - 1) to g - 1. `offset_vectors` looks up the vector of each pair
# of rows.

# %%
block = sam.blocks[0].attention
print("table", tuple(block.rel_pos_h.shape), "-> vectors", tuple(offset_vectors(block.rel_pos_h, 8).shape))

# %% [markdown]
# ## The features
#
# The neck brings the width from 128 to 64 channels. Similar features have similar colours.

# %%
figure = Figure(figsize=(6.4, 2.4), layout="constrained")
for axes, stage in zip(figure.subplots(1, 3), ("patch_embed", "blocks.1", "neck"), strict=True):
    axes.imshow(stage_picture(reading, f"encoder.sam.{stage}"))
    axes.set_title(stage)
    axes.axis("off")
show(figure)

# %% [markdown]
# ## Exercises
#
# **01.1** Cut pixels `b 3 s s` into patches: `b g g n` with g = s / p and n = 3 p p. Within a patch the channels come
# first, then its rows, then its columns.


# %%
def patchify(pixels: torch.Tensor, p: int) -> torch.Tensor:
    raise NotImplementedError


check("01.1", patchify)

# %% [markdown]
# **01.2** A convolution with kernel and stride p is a linear map on such patches. `patches` is `b g g n`, and `weight`
# is that of the convolution, `d 3 p p`. Return `b g g d`, without a bias.


# %%
def embed(patches: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("01.2", embed)

# %% [markdown]
# **01.3** Cut a grid `b g g d` into windows `(b r c) w w d`, row by row. Fill up with zeros on the right and at the
# bottom.


# %%
def windows_of(x: torch.Tensor, w: int) -> torch.Tensor:
    raise NotImplementedError


check("01.3", windows_of)

# %% [markdown]
# **01.4** `table` is `2g-1 k`: one vector for each offset `query - key`, from -(g - 1) to g - 1. Return `g g k`: the
# vector of each pair (query, key).


# %%
def relative(table: torch.Tensor, g: int) -> torch.Tensor:
    raise NotImplementedError


check("01.4", relative)

# %% [markdown]
# **01.5** How many pairs of patches does one head compare in a block, on a page of `side` pixels with windows of
# `window` patches (0 is no windows)? Windows that are filled up count whole.


# %%
def pairs(side: int, window: int) -> int:
    raise NotImplementedError


check("01.5", pairs)
