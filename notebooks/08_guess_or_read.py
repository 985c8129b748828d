# %% [markdown]
# # 08 · Guess or read? The language crutch
#
# A decoder knows language. If it has seen "The library opens at n", it can guess "ine" without looking. So a high OCR
# precision on English does not show that the vision tokens hold the letters. In this notebook you take the language out
# of the text, step by step, and look what remains (the idea is that of arXiv 2601.03714).

# %%
from checks import check
from classroom import TEXT, draw, show
from matplotlib.figure import Figure

from lightseek.data.corruption import corrupt
from lightseek.data.sources.load import load_documents
from lightseek.inspect import confidence, observe
from lightseek.scores.metrics import ocr_precision
from lightseek.text.generate import read
from lightseek.weights.loading import load_model

model = load_model()

# %% [markdown]
# ## The same page with less and less language
#
# Each kind keeps the length of the text and the white space, so the letters have the same size on the page.

# %%
KINDS = ["natural", "shuffled", "replaced", "random"]
for kind in KINDS:
    print(f"{kind:9} {corrupt(TEXT, kind)}")

# %% [markdown]
# ## One page
#
# The entropy says how open the choice of a token was. With random letters, each letter is a surprise to the language
# model, so only the page can name it.

# %%
for kind in ("natural", "random"):
    text = corrupt(TEXT, kind)
    found = observe(model, draw(text, "tiny"), mode="tiny", max_new_tokens=120)
    sure = confidence(found)
    print(
        f"{kind:9} precision {ocr_precision(found.text, text):5.1f} %, entropy {sure.entropy.mean():.3f} nats a token"
    )

# %% [markdown]
# ## Two sizes of letters
#
# Now ten documents each. Short texts have about 2 characters for each of the 64 vision tokens, and long ones about 4:
# their letters are smaller.

# %%
PAGES = 10
documents = {
    "about 2x": [d.text for d in load_documents("pydoc", "test", 400, max_characters=140) if len(d.text) > 100][:PAGES],
    "about 4x": [d.text for d in load_documents("pydoc", "test", 900, max_characters=270) if len(d.text) > 230][:PAGES],
}
{name: f"{sum(map(len, texts)) / len(texts) / 64:.1f} characters a token" for name, texts in documents.items()}

# %%
scores: dict[tuple[str, str], list[float]] = {}
for name, texts in documents.items():
    for kind in KINDS:
        shown = [corrupt(text, kind) for text in texts]
        pages = [draw(text, "tiny") for text in shown]
        outputs = read(model, pages, mode="tiny", batch_size=PAGES, max_new_tokens=300)
        scores[name, kind] = [
            ocr_precision(output.text, text) for output, text in zip(outputs, shown, strict=True)
        ]  # of each page
        print(f"{name}  {kind:9} precision {sum(scores[name, kind]) / PAGES:5.1f} %")

# %% [markdown]
# The first picture is a long page as it is, the second the same page with random letters.

# %%
text = documents["about 4x"][0]
figure = Figure(figsize=(6, 3), layout="constrained")
for axes, kind in zip(figure.subplots(1, 2), ("natural", "random"), strict=True):
    axes.imshow(draw(corrupt(text, kind), "tiny"))
    axes.set_title(kind)
    axes.axis("off")
show(figure)

# %% [markdown]
# ## How sure is that?
#
# Ten pages are few. All kinds were made from the same texts, so we compare page by page. The mean of the differences,
# plus and minus two standard errors, is a rough 95 % interval.

# %%
figure = Figure(figsize=(6, 2.6), layout="constrained")
axes = figure.subplots()
for shift, name in ((-0.1, "about 2x"), (0.1, "about 4x")):
    for place, kind in enumerate(KINDS[1:]):
        gaps = [b - a for a, b in zip(scores[name, "natural"], scores[name, kind], strict=True)]
        mean = sum(gaps) / PAGES
        error = (sum((gap - mean) ** 2 for gap in gaps) / (PAGES - 1) / PAGES) ** 0.5
        colour, label = ("tab:blue", "tab:orange")[shift > 0], name if place == 0 else None
        axes.errorbar(place + shift, mean, 2 * error, fmt="o", capsize=3, color=colour, label=label)
axes.axhline(0, color="grey", linewidth=0.8)
axes.set(ylabel="precision minus natural, points", xticks=range(3), xticklabels=KINDS[1:])
axes.legend()
show(figure)

# %% [markdown]
# Where letters are large, nano reads. Where they are small, it needs the language more. A large model has a stronger
# language model and may lean on it more. So publish the precision on random letters too.
#
# The whole experiment, with more pages, intervals and other claims, is `python -m experiments crutch`.
#
# ## Exercises
#
# **08.1** Write `shuffled`: put the words of a text into a random order that depends on the seed. The words and the
# length stay the same.


# %%
def shuffle(text: str, seed: int) -> str:
    raise NotImplementedError


check("08.1", shuffle)

# %% [markdown]
# **08.2** The character error rate: the smallest number of insertions, deletions and substitutions that turn the output
# into the reference, divided by the length of the reference (Levenshtein's distance).


# %%
def error_rate(output: str, reference: str) -> float:
    raise NotImplementedError


check("08.2", error_rate)

# %% [markdown]
# **08.3** Two lists have the scores of the same documents, in the same order. Return the mean of `one - other` and its
# standard error (with n - 1 in the variance).


# %%
def paired(one: list[float], other: list[float]) -> tuple[float, float]:
    raise NotImplementedError


check("08.3", paired)
