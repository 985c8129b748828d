"""Draws the stages of a page: a feature map in colours, and which experts the vision tokens took.

stage_picture(reading, "encoder.compressor")     # similar features have similar colours
experts_picture(reading, layer=2)                # the first choice of each vision token
"""

from jaxtyping import Int
from PIL import Image
from torch import Tensor

from lightseek.inspect.drawing import colours, rgb, tiled
from lightseek.inspect.interventions import record
from lightseek.inspect.reading import Reading


def stage_picture(reading: Reading, stage: str, run: int = -1, row: int = 0) -> Image.Image:
    """Draw the output of a stage of the encoder or of the projector as a map of colours.

    The first three principal components over the places of the map become red, green and blue. `run` counts the sizes
    of views (-1: the last one), and `row` the views of that size.
    Raises ValueError for a stage that does not exist or whose output is no square map.
    """
    outputs = record(reading.model, [stage], reading.views)[stage]
    if not outputs:
        raise ValueError(f"{stage} does not run for a page: name a stage of the encoder, or the projector")
    tokens = outputs[run][row].float().cpu()  # t d
    side = round(len(tokens) ** 0.5)
    if side * side != len(tokens):
        raise ValueError(f"the output of {stage} is no square map: it has {len(tokens)} positions")
    return rgb(tokens.view(side, side, -1).numpy())


def experts_of(reading: Reading, layer: int) -> Int[Tensor, "p k"]:
    """Return the experts of one mixture-of-experts layer that each position of the image took, the likeliest first.

    `layer` counts these layers from 0. Raises IndexError if there is no such layer.
    """
    routing = reading.seen.routing
    if not -len(routing) <= layer < len(routing):
        raise IndexError(f"no mixture-of-experts layer {layer}: this decoder has {len(routing)}")
    return routing[layer].experts.flatten(0, -2)[reading.image_positions].cpu()


def experts_picture(reading: Reading, layer: int) -> Image.Image:
    """Colour each vision token by the expert that it chose first, and write the expert's number into it."""
    chosen = experts_of(reading, layer)[:, 0].tolist()
    palette = colours(reading.seen.routing[layer].probabilities.shape[-1])
    boxes = [place.box for place in reading.places]
    return tiled(reading.picture, boxes, [palette[expert] for expert in chosen], [str(expert) for expert in chosen])
