# %% [markdown]
# # 10 · Fine-tune for summaries with LoRA
#
# The official model has 3.3 billion parameters. To teach it a new task, most people train an *adapter*: a few small
# matrices beside the frozen ones. In this notebook nano learns to summarize pages, with LoRA on the linear layers of
# its decoder.

# %%
import torch
from checks import check
from classroom import OUT, draw, run_grid, show, table

from lightseek.training.run import Run
from lightseek.training.settings import RunConfig
from lightseek.weights.loading import load_model
from lightseek.weights.lora import add_lora, merge

# %% [markdown]
# ## What LoRA is
#
# A linear layer computes W x. LoRA adds B A x · alpha / r, where A is `r d_in` and B is `d_out r` with a small r. Only
# A and B learn. B starts at zero, so a new adapter changes nothing.

# %%
model = load_model()
before = model.decoder.layers[1].attention.q_proj(torch.ones(1, 256, dtype=model.dtype))
add_lora(model, "attention", r=8, alpha=16.0, dropout=0.0)
layer = model.decoder.layers[1].attention.q_proj
print("A", tuple(layer.lora_A["default"].weight.shape), " B", tuple(layer.lora_B["default"].weight.shape))
print("changes nothing yet:", torch.equal(layer(torch.ones(1, 256, dtype=model.dtype)), before))

# %%
learning = sum(p.numel() for p in model.parameters() if p.requires_grad)
total = sum(p.numel() for p in model.parameters())
print(f"{learning:,} of {total:,} parameters learn: {learning / total:.1%}")

# %% [markdown]
# ## The data
#
# `unseen` are generated documents of kinds that nano never saw in its pre-training. Each has a summary of one line and
# the facts that a correct summary must state.

# %%
layers = "q_proj+k_proj+v_proj+o_proj+gate_proj+up_proj+down_proj+experts"  # all of the decoder's
settings = {"mode": "tiny", "lora": layers, "lora_r": 16, "lora_dropout": 0.0, "lr": 2e-3}
run = Run(RunConfig(**settings, steps=1, train_documents=4, characters=110, device="cpu"), OUT / "10" / "look")
document = run.documents[0]
print("summary:", document.summary, "| facts:", document.facts)
show(draw(document.text, "tiny"), 240)

# %% [markdown]
# ## Before and after
#
# The ablation below has one cell, and a row for the weights before the training. The encoder has no adapter, so each
# page is encoded once and the tokens are kept (the vision cache). That makes 200 steps affordable here: a few minutes.

# %%
summary = run_grid(
    "10/grid",
    **{name: [value] for name, value in settings.items()},
    steps=[200],
    batch=[8],
    train_documents=[400],
    eval_documents=[24],
    characters=[110],
    max_new_tokens=[48],
    eval_every=[1000],
)
table(summary, "rouge1", "facts", "cer")

# %% [markdown]
# *lead-3* takes the first sentences of the document as a summary: compare with it, and not with zero. Before the
# training, the model copied the page. After 200 steps it writes in the form of a summary, and ROUGE-1 is far above that
# of lead-3: the intervals do not overlap.
#
# The facts tell another story. lead-3 states more of them, because it copies most of such a short page. Its CER shows
# how much too long it is. The trained model states about half of them, and its interval overlaps with the one before
# the training. So the form is learned first, and the facts need more steps. With 300 steps of everything but the
# encoder, nano states 79 % of them on longer pages (docs/nano.md). Choose your metric before you look at the table.
#
# ## What it writes now

# %%
import json

folder = next(row for row in summary.rows if row.kind == "cell").folders[0]
lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
for line in lines[1:5]:  # the first line has the settings
    row = json.loads(line)
    print("reference: ", row["reference"], "\nprediction:", row["prediction"], "\n")

# %% [markdown]
# ## The adapter is small, and it can be merged
#
# The adapter is a file of its own (`train.py` writes it to `OUT/adapter`). `merge` adds B A · alpha / r to W: then the
# model is as fast as before, and has no adapter any more.

# %%
with torch.no_grad():
    for module in model.modules():
        if hasattr(module, "lora_B") and "default" in getattr(module, "lora_B", {}):
            module.lora_B["default"].weight.normal_(std=0.02)  # as if it had learned something
x = torch.ones(1, 256, dtype=model.dtype)
adapted = layer(x)
merge(model)
merged = model.decoder.layers[1].attention.q_proj
print(type(merged).__name__, "| the same output up to rounding:", torch.allclose(merged(x), adapted, atol=0.05))

# %% [markdown]
# On the command line, and for the official model:
#
#     python train.py --lora attention --task summarize
#     python train.py --model deepseek-ai/DeepSeek-OCR --lora attention --quantize nf4
#
# ## Exercises
#
# **10.1** Compute a layer with LoRA: x is `n d_in`, W is `d_out d_in`, A is `r d_in`, and B is `d_out r`.


# %%
def lora(x, W, A, B, alpha: float) -> torch.Tensor:
    raise NotImplementedError


check("10.1", lora)

# %% [markdown]
# **10.2** How many parameters does LoRA train for one layer of `d_in` x `d_out` at rank r?


# %%
def lora_parameters(d_in: int, d_out: int, r: int) -> int:
    raise NotImplementedError


check("10.2", lora_parameters)

# %% [markdown]
# **10.3** Make a new adapter (A, B). It must change no output, and it must be able to learn: the gradient has to reach
# at least one of the two. Are two zero matrices good?


# %%
def new_adapter(d_in: int, d_out: int, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    raise NotImplementedError


check("10.3", new_adapter)

# %% [markdown]
# **10.4** Merge the adapter: return the weight of one plain layer with the same output.


# %%
def merged_weight(W, A, B, alpha: float) -> torch.Tensor:
    raise NotImplementedError


check("10.4", merged_weight)
