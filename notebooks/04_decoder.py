# %% [markdown]
# # 04 · The decoder and its experts
#
# The decoder is a language model. It gets the page's vision tokens and the text so far, and gives a score to each token
# that may come next. Most of its layers are a **mixture of experts**: a router sends each token to a few of many small
# MLPs.

# %%
import torch
from checks import check
from classroom import TEXT, draw, show
from matplotlib.figure import Figure

from lightseek.inspect import experts_of, experts_picture, observe
from lightseek.inspect.trace import active_parameters, trace
from lightseek.weights.loading import load_model

model = load_model()
model.config.decoder

# %% [markdown]
# nano has 4 layers of width 256. Layer 0 has one dense MLP. Layers 1 to 3 have 8 experts, of which a token chooses 2,
# and an MLP as large as 3 experts that every token passes. The official decoder has 12 layers of width 1280 with 64
# experts, of which a token chooses 6, and 2 shared ones.
#
# ## One layer
#
# A layer adds two things to the state of each token: what attention brings from other tokens, and what the MLP makes of
# it. The state keeps its shape `b n d` from the first layer to the last.

# %%
model.decoder.layers[1]

# %% [markdown]
# ## What the layers compute
#
# `observe` keeps the states `L n d`: after each of the L = 4 layers, at each of the n positions.

# %%
reading = observe(model, draw(TEXT, "tiny"), mode="tiny")
print("states", tuple(reading.seen.hidden.shape), " attention", tuple(reading.seen.attention.shape), "= L h n n")
print("logits", tuple(reading.seen.logits.shape), "= n v")

# %% [markdown]
# The states grow from layer to layer, because each layer adds to them. The final RMSNorm brings them to one size before
# the output head.

# %%
reading.seen.hidden.float().pow(2).mean(-1).sqrt().mean(1)

# %% [markdown]
# ## The attention is causal
#
# Position i looks at positions 0 to i. All weights above the diagonal are 0, and each row sums to 1. Positions 1 to 73
# are the page, and the text begins at 84. In the last layer you see how the text looks back at the page: the bright
# line moves over the vision tokens, row by row, as the model writes. The pictures show the square root of the weights,
# which makes small ones visible, as a mean over the heads.

# %%
maps = reading.seen.attention.float()
print("above the diagonal:", maps.triu(1).abs().max().item(), " rows sum to", maps.sum(-1).mean().item())
figure = Figure(figsize=(7, 3.4), layout="constrained")
for axes, layer in zip(figure.subplots(1, 2), (0, 3), strict=True):
    axes.imshow(maps[layer].mean(0).sqrt(), cmap="magma")
    axes.set(title=f"layer {layer}, square root", xlabel="position looked at", ylabel="position")
show(figure)

# %% [markdown]
# ## The router
#
# A router is one matrix, `e d`. Its softmax gives each expert a probability, and the token goes to the likeliest ones.

# %%
routing = reading.seen.routing[0]  # of layer 1
print("probabilities", tuple(routing.probabilities.shape), " chosen", tuple(routing.experts.shape))
print("first position:", [round(p, 2) for p in routing.probabilities.flatten(0, -2)[0].tolist()])

# %% [markdown]
# Which expert is the first choice of each vision token? Each number is an expert.

# %%
show(experts_picture(reading, layer=0), 300)

# %% [markdown]
# And which experts do the image and the text take? Here are their shares of the choices in each layer.

# %%
figure = Figure(figsize=(7, 2.2), layout="constrained")
text_positions = torch.arange(reading.prompt_length, reading.input_ids.shape[1])
for axes, layer in zip(figure.subplots(1, 3, sharey=True), range(3), strict=True):
    image = torch.bincount(experts_of(reading, layer).flatten(), minlength=8).float()
    chosen = reading.seen.routing[layer].experts.flatten(0, -2)[text_positions]
    text = torch.bincount(chosen.flatten(), minlength=8).float()
    axes.bar(torch.arange(8) - 0.2, image / image.sum(), 0.4, label="page")
    axes.bar(torch.arange(8) + 0.2, text / text.sum(), 0.4, label="text")
    axes.set(title=f"layer {layer + 1}", xlabel="expert", xticks=range(8))
    axes.axhline(1 / 8, color="grey", linewidth=0.8, linestyle=":")
axes.legend()
figure.axes[0].set_ylabel("share of the choices")
show(figure)

# %% [markdown]
# The dotted line is an even load. The balance loss pulls towards it in training.
#
# ## Many parameters, little work
#
# A token passes only the experts that it chose.

# %%
total = sum(p.numel() for p in model.decoder.parameters())
print(f"decoder: {total:,} parameters, {active_parameters(model):,} of them for one token")

# %% [markdown]
# The trace shows the same for a whole pass: shape, parameters and time of each stage.

# %%
found = trace(model, reading.input_ids, [[reading.views]], mode="tiny")
for stage in found.stages:
    if stage.name.startswith("decoder") and stage.level < 2:
        print(f"{stage.name:20} {stage.shape!s:16} {stage.parameters:>10,}")

# %% [markdown]
# ## Exercises
#
# **04.1** `RMSNorm`: divide x by the root of its mean square over the last axis (add `eps` to the mean), and multiply
# by `weight`.


# %%
def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    raise NotImplementedError


check("04.1", rms_norm)

# %% [markdown]
# **04.2** Causal attention by hand: `q`, `k` and `v` are `b h n k`. A query sees its own key and those before it.


# %%
def attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("04.2", attention)

# %% [markdown]
# **04.3** One expert: `down(silu(gate x) · up x)`. x is `n d`, `gate` and `up` are `f d`, and `down` is `d f`.


# %%
def one_expert(x: torch.Tensor, gate: torch.Tensor, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("04.3", one_expert)

# %% [markdown]
# **04.4** The router: x is `b n d`, `weight` is `e d`. Return the probabilities of the `chosen` likeliest experts
# and their numbers, both `b n k`. The probabilities are a softmax over *all* experts.


# %%
def route(x: torch.Tensor, weight: torch.Tensor, chosen: int) -> tuple[torch.Tensor, torch.Tensor]:
    raise NotImplementedError


check("04.4", route)

# %% [markdown]
# **04.5** The balance loss of a sequence is the sum over the experts of f · P. P is the mean probability of an expert.
# f is its share of the choices, times the number of experts. It is 1 when the load is even. `probabilities` is `b n e`
# and `experts` is `b n k`. Take the mean over b.


# %%
def balance(probabilities: torch.Tensor, experts: torch.Tensor) -> torch.Tensor:
    raise NotImplementedError


check("04.5", balance)

# %% [markdown]
# **04.6** A layer has `experts` routed experts, of which a token chooses `chosen`, and `shared` shared ones. Each has
# `size` parameters. How many parameters does a token pass?


# %%
def active(experts: int, chosen: int, shared: int, size: float) -> float:
    raise NotImplementedError


check("04.6", active)
