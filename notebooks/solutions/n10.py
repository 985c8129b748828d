"""The solutions of notebook 10."""

import torch
import torch.nn.functional as F


def lora(x, W, A, B, alpha):
    return F.linear(x, W) + F.linear(F.linear(x, A), B) * alpha / len(A)


def lora_parameters(d_in, d_out, r):
    return r * (d_in + d_out)


def new_adapter(d_in, d_out, r):
    return torch.randn(r, d_in) / d_in**0.5, torch.zeros(d_out, r)


def merged_weight(W, A, B, alpha):
    return W + B @ A * alpha / len(A)


SOLUTIONS = {"10.1": lora, "10.2": lora_parameters, "10.3": new_adapter, "10.4": merged_weight}
