"""The checks of notebook 06: freezing and the overfit check."""

from torch import nn

from . import Check, Wrong, same, same_number

PARTS = ("sam", "compressor", "clip")


class Toy(nn.Module):
    """A model with the names of the real one and hardly any weights."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({part: nn.Linear(2, 2) for part in PARTS})
        self.projector = nn.Linear(2, 3)
        self.decoder = nn.Linear(3, 3)
        for parameter in self.projector.parameters():
            parameter.requires_grad_(False)  # as another policy may have left it


def freeze_encoder(answer) -> None:
    model = Toy()
    answer(model)
    learning = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    still = sorted(name for name in learning if name.startswith("encoder."))
    if still:
        raise Wrong(f"Gradient: {still[0]} of the encoder would still learn. Set `requires_grad` of each parameter.")
    if "decoder.weight" not in learning:
        raise Wrong("Gradient: the decoder does not learn any more. Only the encoder is frozen.")
    if "projector.weight" not in learning:
        raise Wrong("Gradient: the projector stayed frozen from before. Set it to learn: do not only switch parts off.")


def trainable(answer) -> None:
    model = Toy()
    freeze = model.encoder["sam"]
    for parameter in freeze.parameters():
        parameter.requires_grad_(False)
    count = sum(p.numel() for p in model.parameters() if p.requires_grad)
    mistakes = {
        "You counted the frozen parameters too.": sum(p.numel() for p in model.parameters()),
        "You counted tensors. A weight matrix of 2 x 3 has 6 parameters.": sum(
            p.requires_grad for p in model.parameters()
        ),
        "You counted the frozen parameters only.": sum(p.numel() for p in model.parameters() if not p.requires_grad),
    }
    same_number(answer(model), count, mistakes)


def backward_through(answer) -> None:
    cases = {
        (True, True, False): [False, False, True],
        (False, True, True): [True, True, True],
        (True, False, True, True): [False, True, True, True],
        (True, True): [False, False],
    }
    for frozen, right in cases.items():
        got = answer(list(frozen))
        where = f"For the boxes frozen={list(frozen)}: "
        if got == [not f for f in frozen] != right:
            raise Wrong(
                f"{where}Gradient: a frozen box has no gradient of its own, but the gradient must pass it to reach a "
                "box before it that learns."
            )
        if got == [any(not f for f in frozen[i:]) for i in range(len(frozen))] != right:
            raise Wrong(f"{where}You looked at the boxes behind. The gradient goes to those before.")
        same(got, right, where + "A box is passed if it learns, or if a box before it learns.")


def verdict(answer) -> None:
    cases = {
        (True, (False, False)): "reads",
        (True, (True, False)): "recites",
        (True, (True, True)): "recites",
        (False, (False, False)): "not learned",
        (False, (True, False)): "not learned",
    }
    for (learned, recited), right in cases.items():
        got = answer(learned, list(recited))
        where = f"For learned={learned} and recited={list(recited)}: "
        if right == "recites" and got == "reads":
            raise Wrong(f"{where}One page that does not show the target is enough to tell that it recites.")
        if not learned and got != right:
            raise Wrong(f"{where}Without the target on its own page, the controls say nothing. You returned {got!r}.")
        same(got, right, f"{where}The words are reads, recites and not learned.")


CHECKS: dict[str, Check] = {
    "06.1": freeze_encoder,
    "06.2": trainable,
    "06.3": backward_through,
    "06.4": verdict,
}
