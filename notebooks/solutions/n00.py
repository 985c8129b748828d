"""The solutions of notebook 00."""

import torch.nn.functional as F


def ratio(text_tokens, vision_tokens):
    return text_tokens / vision_tokens


def image_positions(input_ids, image_token_id):
    return (input_ids == image_token_id).sum(1)


def shifted_loss(logits, labels):
    return F.cross_entropy(logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=-100)


SOLUTIONS = {"00.1": ratio, "00.2": image_positions, "00.3": shifted_loss}
