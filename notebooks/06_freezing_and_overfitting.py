# %% [markdown]
# # 06 · Freezing, and the overfit check
#
# Before a long training, two questions: which parts of the model learn, and can it learn at all? The answer to the
# second one takes a minute and finds most mistakes: let the model learn **one** document by heart, and look whether it
# reads it from the page.

# %%
import torch
from checks import check
from classroom import OUT, TEXT, draw, show

from lightseek.inspect import intervene
from lightseek.page.views import page_views
from lightseek.training.freeze import freeze
from lightseek.training.overfit import overfit, overfit_config
from lightseek.training.run import Run
from lightseek.training.settings import RunConfig
from lightseek.weights.loading import load_model

model = load_model()

# %% [markdown]
# ## Freeze policies
#
# A policy names the parts that do **not** learn. A parameter that is frozen has `requires_grad=False`.

# %%
for policy in (None, "encoder", "all-but-projector", "encoder+decoder"):
    counts = freeze(model, policy)
    learning = {count.box: count.trainable for count in counts if count.trainable}
    print(f"{policy!s:18} {sum(learning.values()):>10,} learn: {', '.join(learning)}")

# %% [markdown]
# ## Where gradients flow
#
# If the encoder is frozen, the backward pass stops at the projector. PyTorch then keeps no activations of the encoder,
# which saves memory. Its output is always the same for a page, so it can also be computed once and stored (the *vision
# cache*).

# %%
views = page_views(draw(TEXT, "tiny"), "tiny")


def gradient_of(policy: str | None) -> dict[str, bool]:
    freeze(model, policy)
    model.zero_grad(set_to_none=True)
    model.encode_page(views).sum().backward()
    boxes = {"sam": model.encoder.sam, "compressor": model.encoder.compressor, "projector": model.projector}
    return {name: any(p.grad is not None for p in box.parameters()) for name, box in boxes.items()}


for policy in (None, "encoder", "all-but-compressor"):
    print(f"{policy!s:18}", gradient_of(policy))

# %% [markdown]
# With `all-but-compressor`, the projector has no gradient of its own. The gradient must still pass through it to reach
# the compressor.
#
# ## The overfit check
#
# The run below uses the task *summarize*, which nano does not know yet. Each step sees the document to learn and one of
# the others, so only the page can tell the model which of the two summaries to write. It stops when the greedy output
# equals the target, letter for letter.

# %%
small = RunConfig(mode="tiny", freeze="encoder", steps=60, lr=1e-3, train_documents=8, characters=110, device="cpu")


def try_to_learn(name: str, config: RunConfig, vision: str = "keep"):
    run = Run(overfit_config(config), OUT / "06" / name)
    losses = []
    with intervene(run.model, "layout", vision):
        outcome = overfit(run, max_seconds=60, report=lambda step, loss, right: losses.append((loss, right)))
    print(f"{outcome.verdict} after {outcome.steps} steps\n  target: {outcome.target}\n  output: {outcome.output}")
    for control in outcome.controls:
        print(f"  for {control.page}: {control.output}")
    return run, outcome, losses


run, outcome, losses = try_to_learn("reads", small)
show(run.make.images(outcome.example.document)[0], 240)

# %% [markdown]
# The verdict is *reads*: it writes the target for this page, and something else for a blank page and for a page that it
# did not learn from.
#
# ## What the curve looks like

# %%
from matplotlib.figure import Figure

figure = Figure(figsize=(6, 2.4), layout="constrained")
axes = figure.subplots()
axes.plot([loss for loss, _ in losses], label="loss (nats a token)")
axes.plot([right for _, right in losses], label="share of right tokens")
axes.set(xlabel="step", ylim=(0, None))
axes.legend()
show(figure)

# %% [markdown]
# ## The same with a broken model
#
# Suppose that a bug sets all vision tokens to zero. The loss still falls, because the text alone can be learned by
# heart. With one document, the greedy output even becomes right. Only the controls show the mistake.

# %%
from dataclasses import replace

_, broken, _ = try_to_learn("broken", replace(small, train_documents=1), vision="zero")
print(broken.advice)

# %% [markdown]
# The same check on the command line is `python train.py --overfit`. It ends with exit code 0 for *reads*, 1 for *not
# learned* and 3 for *recites*.
#
# ## Exercises
#
# **06.1** Write the policy `encoder`: nothing below `encoder.` learns, and everything else does, whatever was frozen
# before. Use `model.named_parameters()`.


# %%
def freeze_encoder(model: torch.nn.Module) -> None:
    raise NotImplementedError


check("06.1", freeze_encoder)

# %% [markdown]
# **06.2** How many parameters of a model learn?


# %%
def trainable(model: torch.nn.Module) -> int:
    raise NotImplementedError


check("06.2", trainable)

# %% [markdown]
# **06.3** The boxes of a model follow each other. `frozen[i]` says whether box i is frozen. Return a list that says
# through which boxes the backward pass must go. It goes through a box if the box learns, or if a gradient is needed
# further in front.


# %%
def backward_through(frozen: list[bool]) -> list[bool]:
    raise NotImplementedError


check("06.3", backward_through)

# %% [markdown]
# **06.4** Write the verdict. `learned` says whether the model wrote the target for its own page, and `recited[i]`
# whether it also wrote it for control page i. The words are `"reads"`, `"recites"` and `"not learned"`.


# %%
def verdict(learned: bool, recited: list[bool]) -> str:
    raise NotImplementedError


check("06.4", verdict)
