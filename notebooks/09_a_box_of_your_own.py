# %% [markdown]
# # 09 · Swap a box of your own
#
# What does the compressor contribute? To find out, put another one in its place and leave everything else as it is: the
# data, the training, the decoding and the scores. In this notebook you write a compressor, register it under a name,
# and compare it in an ablation, as `ablate.py --compressor conv mine` would do.

# %%
import torch
import torch.nn.functional as F
from checks import check
from classroom import TEXT, draw, run_grid, show, table
from matplotlib.figure import Figure
from torch import nn

from lightseek.inspect import observe
from lightseek.model.kinds import COMPRESSORS
from lightseek.page.views import page_views
from lightseek.weights.loading import load_model
from lightseek.weights.swap import swap_box

# %% [markdown]
# ## The contract
#
# A compressor is called with the model's config and its own settings. `factor` is f: it makes f x f times fewer tokens.
#
#     b c0 g g   ->   b c2 g/f g/f        c0 = config.sam.neck, c2 = config.clip.width
#
# This one takes a patch from the middle of each square and forgets the other 15. It should be bad: we want to see that.


# %%
class Middle(nn.Module):
    """`b c0 g g` to `b c2 g/f g/f`: one patch of each square of f x f, then a linear map to CLIP's width."""

    def __init__(self, config, factor=4):
        super().__init__()
        self.factor = factor
        self.widen = nn.Conv2d(config.sam.neck, config.clip.width, kernel_size=1, bias=False)

    def forward(self, x):
        start = self.factor // 2
        return self.widen(x[..., start :: self.factor, start :: self.factor])


COMPRESSORS["middle"] = Middle
list(COMPRESSORS)

# %% [markdown]
# ## Put it in
#
# `swap_box` replaces one box. The new one has random weights, and all other boxes keep theirs.

# %%
model = load_model()
page = draw(TEXT, "tiny")
print("before:", observe(model, page, mode="tiny").text)
swap_box(model, "compressor", "middle")
print("after: ", repr(observe(model, page, mode="tiny", max_new_tokens=60).text))
model.encoder.compressor

# %% [markdown]
# Another factor changes the number of tokens, and the arithmetic follows by itself: 8 x 8 tokens become 4 x 4.

# %%
with torch.no_grad():
    for factor in (4, 8):
        swap_box(model, "compressor", "middle", {"factor": factor})
        print("factor", factor, "->", model.encode_page(page_views(page, "tiny")).shape[0], "positions")

# %% [markdown]
# ## The ablation
#
# The comparison must be fair. A trained box against a random one says more about the training than about the box. So
# a new box first has a *warm start*: it learns to imitate the old one for 300 steps. Then all cells train in the same
# way: here only the compressor learns, for 10 steps. The command line is
#
#     python ablate.py --compressor conv pixelshuffle middle --freeze all-but-compressor --task ocr --tokens 64 ...
#
# (A program that uses your box must register it first: see docs/decoders.md.)

# %%
summary = run_grid(
    "09",
    before=False,
    compressor=["conv", "pixelshuffle", "middle"],
    freeze=["all-but-compressor"],
    task=["ocr"],
    mode=["tiny"],
    steps=[10],
    batch=[4],
    train_documents=[24],
    eval_documents=[8],
    max_new_tokens=[90],
    characters=[80],
    eval_every=[1000],
)
table(summary, "ocr_precision", "cer")

# %%
figure = Figure(figsize=(6, 2.4), layout="constrained")
axes = figure.subplots()
rows = [row for row in summary.rows if row.kind == "cell"]
for place, row in enumerate(rows):
    found = row.figures["ocr_precision"]
    axes.errorbar(found.value, place, xerr=[[found.value - found.low], [found.high - found.value]], fmt="o", capsize=3)
axes.set(yticks=range(len(rows)), yticklabels=[row.name for row in rows], xlabel="OCR precision, % (95 % interval)")
show(figure)

# %% [markdown]
# One seed and eight documents are enough for a large difference and for no other. `--seeds 3` and more documents tell
# more, and `--match parameters` gives all kinds as many parameters as the first one.

# %%
for difference in summary.differences:
    if difference.metric == summary.metrics[0]:
        verdict = "resolved" if difference.resolved else "not resolved"
        print(f"{difference.row} minus {difference.baseline}: {difference.figure.value:.1f} points, {verdict}")

# %% [markdown]
# ## Exercises
#
# **09.1** Write a compressor that takes the **maximum** of each square of f x f patches and then maps the channels to
# CLIP's width. Give the class itself to the check.


# %%
class MaxPool(nn.Module):
    def __init__(self, config, factor=4):
        super().__init__()
        raise NotImplementedError

    def forward(self, x):
        return F.max_pool2d(x, 4)


check("09.1", MaxPool)

# %% [markdown]
# **09.2** `pixelshuffle` with `hidden` puts the channels of f x f patches one after the other, maps them to `hidden`
# channels and then to `width` channels, without biases. How many weights is that? (`--match parameters` solves this
# for `hidden`.)


# %%
def weights_of_pixelshuffle(channels: int, factor: int, hidden: int, width: int) -> int:
    raise NotImplementedError


check("09.2", weights_of_pixelshuffle)

# %% [markdown]
# **09.3** Design a compressor of your own. The check tries the contract: shapes for several factors and pages, a
# default factor of 4, a gradient to the patches and to each weight, and no page that depends on others in its batch.
# Then register it and add it to the list in the ablation above.


# %%
class Mine(nn.Module):
    def __init__(self, config, factor=4):
        super().__init__()
        raise NotImplementedError


check("09.3", Mine)
