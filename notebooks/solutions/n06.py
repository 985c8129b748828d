"""The solutions of notebook 06."""


def freeze_encoder(model):
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not name.startswith("encoder."))


def trainable(model):
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def backward_through(frozen):
    return [not all(frozen[: i + 1]) for i in range(len(frozen))]


def verdict(learned, recited):
    if not learned:
        return "not learned"
    return "recites" if any(recited) else "reads"


SOLUTIONS = {"06.1": freeze_encoder, "06.2": trainable, "06.3": backward_through, "06.4": verdict}
