# %% [markdown]
# # 02 · The 16x compressor and the arithmetic of tokens
#
# SAM gives one vector for each patch of 16 x 16 pixels. A page of 1024 x 1024 pixels has 64 x 64 = 4096 of them. That
# would be too many for a language model. Two convolutions make 256 of them: this small box is the "optical
# compression".

# %%
import torch
from checks import check
from classroom import OTHER_TEXT, TEXT, draw, show
from matplotlib.figure import Figure

from lightseek.inspect import image_places, intervene, observe, stage_picture
from lightseek.page.modes import MODES, OFFICIAL, positions, valid_tokens, vision_tokens
from lightseek.page.views import page_views
from lightseek.weights.loading import load_model

model = load_model()
model.encoder.compressor

# %% [markdown]
# ## Shapes
#
# Each convolution has a kernel of 3 x 3, a stride of 2 and a padding of 1, so it halves both sides. The channels grow
# from 64 to 128 to 256 (officially 256 to 512 to 1024). Nothing is between the two, not even an activation.

# %%
views = page_views(draw(TEXT, "tiny"), "tiny")
with torch.no_grad():
    patches = model.encoder.sam(views.global_view[None].to(model.dtype))  # b c0 g g
    tokens = model.encoder.compressor(patches)  # b c2 r r
print("patches", tuple(patches.shape), "->", "tokens", tuple(tokens.shape))
print("numbers in:", patches.numel(), " numbers out:", tokens.numel(), " ratio:", patches.numel() / tokens.numel())

# %% [markdown]
# 16 times fewer tokens, but only 4 times fewer numbers: each token became 4 times as wide.
#
# ## What it looks like
#
# The first three principal components of a feature map become red, green and blue. On the left are SAM's 32 x 32
# patches, on the right the 8 x 8 tokens.

# %%
reading = observe(model, draw(TEXT, "tiny"), mode="tiny")
figure = Figure(figsize=(6.4, 3), layout="constrained")
for axes, stage in zip(figure.subplots(1, 2), ("encoder.sam", "encoder.compressor"), strict=True):
    axes.imshow(stage_picture(reading, stage))
    axes.set_title(stage)
    axes.axis("off")
show(figure)

# %% [markdown]
# ## What one token sees
#
# A token stands for a square of 64 x 64 pixels. Position 0 of an image is its upper left token, and a newline follows
# the last token of a row. `image_places` lists them in the decoder's order.

# %%
places = image_places(views, "tiny", (512, 512))
for index in (0, 7, 8, 9, len(places) - 1):
    print(index, places[index].kind, places[index].box)

# %% [markdown]
# ## Token arithmetic
#
#     side / 16 = patches along a side;   / 4 = tokens along a side
#     positions = rows x (tokens in a row + 1 newline) + 1 separator

# %%
for mode in MODES.values():
    grid = (2, 2) if mode.tile else (1, 1)
    print(
        f"{mode.name:9} {mode.description:38} {vision_tokens(mode, grid):5} tokens {positions(mode, grid):5} positions"
    )

# %% [markdown]
# Modes `base` and `large` keep the shape of the page and fill up the square with grey. Tokens that see only grey are
# wasted.

# %%
for size in ((1000, 1000), (700, 1000), (1000, 300)):
    print(size, "->", valid_tokens("base", *size), "of", OFFICIAL.of_mode("base").tokens, "tokens see the page")

# %% [markdown]
# ## Compression ratio
#
# The text below has 91 tokens for nano, because its tokens are characters. The official tokenizer puts about four
# characters into a token, so a ratio says something only together with its tokenizer.

# %%
text_tokens = len(TEXT) + 1  # the last one says that the text ends
for mode in ("tiny", "small", "base"):
    tokens_of_mode = vision_tokens(mode)
    print(f"{mode:6} {text_tokens} text tokens / {tokens_of_mode} vision tokens = {text_tokens / tokens_of_mode:.2f}")

# %% [markdown]
# ## Is this box needed?
#
# We replace the compressor's output by its mean over the page, so that all tokens are the same: the text is lost. Then
# we keep all tokens and put them into a random order: letters of the page come back, but no words.

# %%
with intervene(model, "encoder.compressor", "average"):
    print("average:", observe(model, draw(TEXT, "tiny"), mode="tiny", max_new_tokens=60).text)
with intervene(model, "encoder.compressor", "permute"):
    print("permute:", observe(model, draw(OTHER_TEXT, "tiny"), mode="tiny", max_new_tokens=60).text)

# %% [markdown]
# ## Exercises
#
# **02.1** How many vision tokens does a view with this side in pixels have?


# %%
def tokens_of(side: int) -> int:
    raise NotImplementedError


check("02.1", tokens_of)

# %% [markdown]
# **02.2** And how many positions does it fill in the decoder's sequence?


# %%
def positions_of(side: int) -> int:
    raise NotImplementedError


check("02.2", positions_of)

# %% [markdown]
# **02.3** Write the compressor with `torch.nn.functional.conv2d`. `x` is `b c0 g g`, and the weights are
# `c1 c0 3 3` and `c2 c1 3 3`. There are no biases.


# %%
def compress(x: torch.Tensor, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("02.3", compress)

# %% [markdown]
# **02.4** Another compressor takes the mean of each square of f x f patches. Write it without `avg_pool2d`: from
# `b c g g` to `b c g/f g/f`. Every patch must get a gradient.


# %%
def mean_pool(x: torch.Tensor, factor: int) -> torch.Tensor:
    raise NotImplementedError


check("02.4", mean_pool)

# %% [markdown]
# **02.5** Equation 1 of the paper: a page of `width` x `height` pixels is padded to a square of `tokens` vision tokens.
# How many of them see the page?


# %%
def useful(tokens: int, width: int, height: int) -> int:
    raise NotImplementedError


check("02.5", useful)
