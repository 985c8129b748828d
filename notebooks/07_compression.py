# %% [markdown]
# # 07 · Compression: your own curve
#
# How much text fits into one vision token? The paper's answer is a curve: the OCR precision over the compression ratio.
# In this notebook you measure such a curve for nano, with intervals, in a few minutes.

# %%
from checks import check
from classroom import draw, show
from matplotlib.figure import Figure

from lightseek.data.sources.load import load_documents
from lightseek.page.modes import vision_tokens
from lightseek.scores.metrics import ocr_precision
from lightseek.text.generate import read
from lightseek.weights.loading import load_model

model = load_model()

# %% [markdown]
# ## Texts of several lengths
#
# The documentation of Python's own modules is a source of natural text that needs no download. We cut eight texts to
# whole words at six lengths. In mode `tiny` (64 vision tokens) that gives ratios from 0.8 to 10.

# %%
LENGTHS, PAGES = (50, 110, 200, 320, 480, 640), 8
whole = [d.text for d in load_documents("pydoc", "test", 400, max_characters=1500) if len(d.text) > 680][:PAGES]


def cut(text: str, length: int) -> str:
    return " ".join(text.split())[:length].rsplit(" ", 1)[0]


{length: cut(whole[0], length)[:60] for length in LENGTHS}

# %% [markdown]
# ## What the model sees
#
# The page stays as large as it is, so more text means smaller letters.

# %%
figure = Figure(figsize=(7, 4.8), layout="constrained")
for axes, length in zip(figure.subplots(2, 3).flat, LENGTHS, strict=True):
    axes.imshow(draw(cut(whole[0], length), "tiny"))
    axes.set_title(f"{length} characters")
    axes.axis("off")
show(figure)

# %% [markdown]
# ## Read them
#
# In two modes: 64 and 100 vision tokens. The precision is 1 - edits / length of the longer text. A model that is lost
# may write without an end, so we stop it 50 characters after the length of the text.

# %%
scores: dict[tuple[str, int], list[float]] = {}  # (mode, length) -> the precision of each page
ratios: dict[tuple[str, int], float] = {}
for mode in ("tiny", "small"):
    for length in LENGTHS:
        texts = [cut(text, length) for text in whole]
        pages = [draw(text, mode) for text in texts]
        outputs = read(model, pages, mode=mode, batch_size=PAGES, max_new_tokens=length + 50)
        scores[mode, length] = [ocr_precision(output.text, text) for output, text in zip(outputs, texts, strict=True)]
        ratios[mode, length] = sum(map(len, texts)) / PAGES / vision_tokens(mode)
        print(f"{mode:6} {ratios[mode, length]:4.1f}x  precision {sum(scores[mode, length]) / PAGES:5.1f} %")

# %% [markdown]
# ## The curve
#
# Each point is a mean of eight pages, so it needs an interval. We use a *bootstrap*: draw eight of the eight pages with
# replacement, many times, and take the middle 95 % of the means.

# %%
import numpy as np


def bootstrap(scores: list[float]) -> tuple[float, float]:
    rng = np.random.default_rng(0)
    means = rng.choice(scores, size=(2000, len(scores))).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


figure = Figure(figsize=(6, 3), layout="constrained")
axes = figure.subplots()
for mode in ("tiny", "small"):
    means = [sum(scores[mode, length]) / PAGES for length in LENGTHS]
    ends = [bootstrap(scores[mode, length]) for length in LENGTHS]
    error = [
        [mean - low for mean, (low, _) in zip(means, ends, strict=True)],
        [high - mean for mean, (_, high) in zip(means, ends, strict=True)],
    ]
    x = [ratios[mode, length] for length in LENGTHS]
    axes.errorbar(x, means, error, marker="o", capsize=3, label=f"{mode}, {vision_tokens(mode)} tokens")
axes.set(xlabel="nano's text tokens (characters) per vision token", ylabel="OCR precision, %", ylim=(0, 102))
axes.legend()
show(figure)

# %% [markdown]
# As long as letters are large, nano reads nearly everything. Then they get too small, and the curve falls steeply. The
# paper's curve has the same form, at other ratios.
#
# ## The same text in both modes
#
# A ratio compares different texts. To ask whether more vision tokens help, compare page by page: the same text in both
# modes. The interval of the mean difference says for which lengths the answer is known.

# %%
for length in LENGTHS:
    gaps = [small - tiny for tiny, small in zip(scores["tiny", length], scores["small", length], strict=True)]
    low, high = bootstrap(gaps)
    verdict = "small is better" if low > 0 else "tiny is better" if high < 0 else "not resolved"
    print(f"{length:3} characters: small minus tiny {sum(gaps) / PAGES:+6.1f} ({low:+.1f} to {high:+.1f})  {verdict}")

# %% [markdown]
# In the plot the curve of `tiny` lies above that of `small`, and yet `small` reads the longer texts better. Both are
# true. At the same ratio a page of `small` has half as many letters again, and nano is weaker on long pages. So say
# which comparison you mean: the same ratio, or the same text.
#
# ## A warning about units
#
# The paper's ratio counts tokens of DeepSeek's tokenizer, which have about 4 characters. So 4x here is only about 1x in
# the paper's unit, where the official model still reads 97 % at 10x. Compare ratios only within one tokenizer.

# %%
for (mode, _), ratio in list(ratios.items())[:6]:
    print(f"{mode} {ratio:.1f}x in nano's tokens is about {ratio / 4:.2f}x in the paper's")

# %% [markdown]
# The whole curve, with 200 pages a point, is in docs/nano.md, and `python -m experiments compression` measures it as a
# grid. With the official weights: `--model deepseek-ai/DeepSeek-OCR`.
#
# ## Exercises
#
# **07.1** Convert a ratio: a page of `characters` is shown as `vision` tokens, and a tokenizer puts `per_token`
# characters into a token. What is the compression ratio in its tokens?


# %%
def ratio_in_tokens(characters: int, per_token: float, vision: int) -> float:
    raise NotImplementedError


check("07.1", ratio_in_tokens)

# %% [markdown]
# **07.2** The error rate of many pages: `edits[i]` and `lengths[i]` are those of page i. Return the *pooled* rate, in
# which each character counts equally.


# %%
def pooled(edits: list[int], lengths: list[int]) -> float:
    raise NotImplementedError


check("07.2", pooled)

# %% [markdown]
# **07.3** The bootstrap: return the ends of the 95 % interval of the mean of `values`, from 2000 draws.


# %%
def interval(values: list[float], seed: int) -> tuple[float, float]:
    raise NotImplementedError


check("07.3", interval)

# %% [markdown]
# **07.4** Points of a curve are (ratio, precision), in no order. Return the largest ratio up to which *all* points have
# at least `goal` precision (0 if there is none).


# %%
def holds_up_to(points: list[tuple[float, float]], goal: float) -> float:
    raise NotImplementedError


check("07.4", holds_up_to)
